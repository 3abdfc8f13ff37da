//! A record, and its line in the log.

use std::{fmt, io, net::IpAddr};

use prost_types::Timestamp as ProtoTimestamp;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::ser::Formatter;
use uuid::Uuid;

use crate::domain::{
    clock::Timestamp,
    newtypes::{AccountName, ChangeId, new_uuid},
};

/// Maximum length of a text, in bytes.
const MAX_TEXT_BYTES: usize = 512;

/// Names of all fields, in their order in a line and in a row of a CSV file.
pub const FIELDS: [&str; 20] = [
    "time",
    "id",
    "event",
    "replica",
    "call_id",
    "method",
    "caller",
    "identity",
    "auth_method",
    "peer",
    "account",
    "operation",
    "devices",
    "change_id",
    "action",
    "target",
    "code",
    "reason",
    "executed",
    "count",
];

/// All events.
#[cfg(test)]
const EVENTS: [AuditEvent; 12] = [
    AuditEvent::Call,
    AuditEvent::CallStarted,
    AuditEvent::StreamOpened,
    AuditEvent::StreamEnded,
    AuditEvent::Refusals,
    AuditEvent::LogStarted,
    AuditEvent::LogStopped,
    AuditEvent::LineRepaired,
    AuditEvent::RecordsLost,
    AuditEvent::Calls,
    AuditEvent::StreamsOpened,
    AuditEvent::StreamsEnded,
];

/// The event that a record reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// A call has ended.
    Call,
    /// A change or a command of an operator begins. Nothing has been sent yet.
    CallStarted,
    /// A stream was opened.
    StreamOpened,
    /// A stream has ended.
    StreamEnded,
    /// Calls of one caller or address were refused for one reason. `count` is their number.
    Refusals,
    /// The gateway has opened the log. Written by the log.
    LogStarted,
    /// The gateway has closed the log. Written by the log.
    LogStopped,
    /// The line before this one is incomplete. Written by the log.
    LineRepaired,
    /// `count` records could not be written. Written by the log.
    RecordsLost,
    /// `count` reads and changes that never began have no record of their own: their caller made many calls.
    Calls,
    /// `count` streams were opened that have no record of their own.
    StreamsOpened,
    /// `count` streams have ended that have no record of their own.
    StreamsEnded,
}

/// Identifies a call in all of its records: a UUID, version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct CallId(Uuid);

/// A text that may come from a caller: at most 512 bytes, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct AuditText(String);

/// One record. The log adds the time, the id and the replica.
///
/// A `&'static str` holds a name of this program, never input of a caller. A record has no field for the name or the
/// address of a customer, an idempotency key, a client reference, a token or an identifier of a device.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// The event.
    pub event: AuditEvent,
    /// The call; `None` only in records of the log itself, and of counted calls.
    pub call_id: Option<CallId>,
    /// The RPC: `package.Service/Method`.
    pub method: Option<&'static str>,
    /// The name of the caller in the policy.
    pub caller: Option<AuditText>,
    /// The primary name of the identity of the caller.
    pub identity: Option<AuditText>,
    /// The method of authentication, such as `mtls`.
    pub auth_method: Option<&'static str>,
    /// The address of the calling service.
    pub peer: Option<IpAddr>,
    /// The billing account.
    pub account: Option<AccountName>,
    /// The operation, such as `esim_plan`.
    pub operation: Option<&'static str>,
    /// The number of devices of the change.
    pub devices: Option<u32>,
    /// The change.
    pub change_id: Option<ChangeId>,
    /// The command of an operator, such as `drop_quarantined_callback`.
    pub action: Option<&'static str>,
    /// The id of the object that the command acts on.
    pub target: Option<AuditText>,
    /// The gRPC status, such as `PERMISSION_DENIED`.
    pub code: Option<&'static str>,
    /// The reason of an error, such as `THROTTLED`, or of the end of a stream.
    pub reason: Option<&'static str>,
    /// Execution of the change by ThingSpace: `YES`, `NO` or `UNKNOWN`.
    pub executed: Option<&'static str>,
    /// The number of calls or records that this record stands for.
    pub count: Option<u64>,
}

/// The serialized form of a record.
struct Line<'a> {
    time: Timestamp,
    id: Uuid,
    replica: &'a str,
    record: &'a AuditRecord,
}

/// Escapes all characters outside printable ASCII, so that a terminal can show each line.
struct AsciiFormatter;

// === impl CallId ===

impl CallId {
    /// Creates an id that sorts by `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(new_uuid(now))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl AuditText ===

impl AuditText {
    /// Cuts the text at 512 bytes, marks the cut with `…`, and replaces control characters by `?`.
    pub fn new(text: &str) -> Self {
        let printable = text.chars().map(|c| if c.is_control() { '?' } else { c });
        if text.len() <= MAX_TEXT_BYTES {
            return Self(printable.collect());
        }
        let end = '…';
        let mut cut = String::with_capacity(MAX_TEXT_BYTES);
        for c in printable {
            if cut.len() + c.len_utf8() + end.len_utf8() > MAX_TEXT_BYTES {
                break;
            }
            cut.push(c);
        }
        cut.push(end);
        Self(cut)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for AuditText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

// === impl AuditRecord ===

impl AuditRecord {
    /// A record of an event of a call. All other fields are empty.
    pub fn new(event: AuditEvent, call_id: CallId) -> Self {
        Self { call_id: Some(call_id), ..Self::of_log(event, None) }
    }

    /// A record without a call.
    pub(super) fn of_log(event: AuditEvent, count: Option<u64>) -> Self {
        Self {
            event,
            call_id: None,
            method: None,
            caller: None,
            identity: None,
            auth_method: None,
            peer: None,
            account: None,
            operation: None,
            devices: None,
            change_id: None,
            action: None,
            target: None,
            code: None,
            reason: None,
            executed: None,
            count,
        }
    }

    /// Returns the line of the record, which ends with a newline: at most 6 KiB of printable ASCII.
    pub(super) fn line(&self, now: Timestamp, replica: &str) -> Vec<u8> {
        let line = Line { time: now, id: new_uuid(now), replica, record: self };
        let mut bytes = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, AsciiFormatter);
        // Writing texts and numbers to memory cannot fail.
        let _ = line.serialize(&mut serializer);
        bytes.push(b'\n');
        bytes
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut line = serializer.serialize_struct("AuditRecord", FIELDS.len())?;
        line.serialize_field("time", &rfc3339(self.time))?;
        line.serialize_field("id", &self.id)?;
        line.serialize_field("event", &record.event)?;
        line.serialize_field("replica", self.replica)?;
        macro_rules! optional {
            ($($field:ident)+) => {$(
                if let Some(value) = &record.$field {
                    line.serialize_field(stringify!($field), value)?;
                }
            )+};
        }
        optional! {
            call_id method caller identity auth_method peer account operation devices change_id action
            target code reason executed count
        }
        line.end()
    }
}

// === impl AsciiFormatter ===

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let is_printable = |c: char| (' '..='~').contains(&c);
        if fragment.chars().all(is_printable) {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if is_printable(c) {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// Formats a time with six digits of a second, so that times sort as texts.
fn rfc3339(time: Timestamp) -> String {
    let micros = time.as_micros().rem_euclid(1_000_000);
    let seconds = ProtoTimestamp { nanos: 0, ..ProtoTimestamp::from(time) }.to_string();
    format!("{}.{micros:06}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests;
