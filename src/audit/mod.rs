//! The audit log: who changed, read or watched what, from where, and with what outcome.
//!
//! Each record is one line of JSON (docs/audit.md). A record never contains a name or an address of a customer, an
//! idempotency key, a client reference, a token or an identifier of a device. The settings `audit.*` select the
//! destination. Records do not go through `tracing`: the log level cannot drop them.
//!
//! # Which records a call has
//!
//! | call | records |
//! | --- | --- |
//! | a change, a command of an operator | [`AuditLog::begin`] before anything is sent, then [`AuditedCall::end`] |
//! | a stream | [`AuditLog::open_stream`], then [`AuditedCall::end`] |
//! | a read, or a change or command that was rejected before it began | [`AuditLog::record_call`] |
//! | a call that was refused before its message was read, or by its handler with PERMISSION_DENIED | [`AuditLog::record_refusal`] |
//!
//! Only calls that begin have a record each. Of the others, each caller has a few records of their own in 10 s, and the
//! rest is counted in a bounded table: a client that repeats calls cannot rotate older records away.
//!
//! A process that is killed between `begin` and `end` leaves a `call_started` without a `call`. The journal has the
//! outcome of the change.
//!
//! # Example
//!
//! ```ignore
//! let record = AuditRecord {
//!     method: Some("thingspace.gateway.v1.GatewayService/ChangeEsimPlan"),
//!     caller: Some("fleet-service".into()),
//!     identity: Some("spiffe://corp.example/ns/fleet/sa/api".into()),
//!     auth_method: Some("mtls"),
//!     peer: Some(peer.ip()),
//!     account: Some(account),
//!     operation: Some("esim_plan"),
//!     devices: Some(250),
//!     ..AuditRecord::new(AuditEvent::CallStarted, log.new_call_id())
//! };
//! // UNAVAILABLE, and nothing is sent, if the log cannot be written.
//! let (mut call, recorded) = log.begin(record).await?;
//! recorded.await?;
//! let change = dispatch(request).await;
//! call.set_change(change.change_id);
//! let end = CallEnd { code: "OK", reason: None, executed: Some("YES") };
//! // The response is sent after this, also if the record is delayed: the change has been executed.
//! let _delayed = call.end(end).await;
//! ```
//!
//! # If the log cannot be written
//!
//! The writer keeps its lines and tries again every second. [`AuditLog::is_available`] is false until an attempt has
//! succeeded, and `begin` fails. Other calls go on: their records wait in the queue, and are lost and counted once it
//! is full. The queue has a place for the end of each call and each stream whose begin has a record, so it is never lost.
//!
//! Lines are written in the order of the calls to this module, each once. The exception is a failed sync: its lines
//! are written again, under the same ids.

mod aggregation;
mod call;
mod error;
mod file;
mod log;
mod output;
mod reader;
mod record;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

pub use call::{AuditedCall, CallEnd};
pub use error::{AuditOpenError, AuditUnavailable, RecordError};
pub use log::{AuditLog, AuditOptions, WeakAuditLog, queue_slots};
pub use reader::{AuditLine, AuditReader, AuditTail, ParsedRecord};
pub use record::{AuditEvent, AuditRecord, AuditText, CallId, FIELDS};
