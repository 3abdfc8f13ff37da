//! A fake output, clock and records for tests.

use std::{
    io,
    sync::{Arc, mpsc},
};

use parking_lot::Mutex;

use crate::{
    audit::{
        log::{AuditLog, AuditOptions},
        output::{AppendError, Output},
        record::{AuditEvent, AuditRecord, CallId},
    },
    config::AuditOutput,
    domain::clock::{Clock, Timestamp},
    telemetry::Instruments,
};

/// 2026-03-01T12:00:00.000007Z.
pub(super) const NOON: Timestamp = Timestamp::from_micros(1_772_366_400_000_007);

/// A clock that stands still.
pub(super) struct NoonClock;

/// An output in memory that can fail. Its clones share the content.
#[derive(Clone, Default)]
pub(crate) struct FakeOutput(Arc<Mutex<FakeState>>);

#[derive(Default)]
struct FakeState {
    bytes: Vec<u8>,
    /// Number of bytes that still fit; any number if `None`.
    space: Option<usize>,
    fails_sync: bool,
    syncs: usize,
    /// An append waits until its sender is dropped.
    held: Option<mpsc::Receiver<()>>,
}

impl Clock for NoonClock {
    fn now(&self) -> Timestamp {
        NOON
    }
}

impl FakeOutput {
    pub(super) fn set_space(&self, space: Option<usize>) {
        self.0.lock().space = space;
    }

    pub(crate) fn fail_syncs(&self, fails: bool) {
        self.0.lock().fails_sync = fails;
    }

    /// The next append waits until the result is dropped.
    pub(crate) fn hold(&self) -> mpsc::Sender<()> {
        let (sender, receiver) = mpsc::channel();
        self.0.lock().held = Some(receiver);
        sender
    }

    pub(super) fn syncs(&self) -> usize {
        self.0.lock().syncs
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().bytes.clone()).unwrap()
    }

    /// Returns the values of a field of all complete lines that have it.
    pub(crate) fn values(&self, field: &str) -> Vec<String> {
        let text = self.text();
        let records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        records.filter_map(|record: serde_json::Value| Some(text_of(record.get(field)?))).collect()
    }
}

fn text_of(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Output for FakeOutput {
    fn prepare(&mut self, _length: usize) -> io::Result<()> {
        Ok(())
    }

    fn is_torn(&self) -> bool {
        self.0.lock().bytes.last().is_some_and(|last| *last != b'\n')
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let held = self.0.lock().held.take();
        if let Some(held) = held {
            let _ = held.recv();
        }
        let mut state = self.0.lock();
        let written = state.space.map_or(bytes.len(), |space| space.min(bytes.len()));
        state.bytes.extend(&bytes[..written]);
        if let Some(space) = &mut state.space {
            *space -= written;
        }
        if written < bytes.len() {
            let error = io::ErrorKind::StorageFull.into();
            return Err(AppendError { written, error });
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncs += 1;
        if state.fails_sync { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

pub(super) fn options(queue_slots: usize) -> AuditOptions {
    AuditOptions {
        output: AuditOutput::File,
        path: "audit.log".into(),
        max_bytes: 1 << 20,
        max_files: 3,
        replica: "gateway-0".into(),
        queue_slots,
    }
}

/// Starts a log with this output.
pub(crate) fn start(output: &FakeOutput, queue_slots: usize) -> AuditLog {
    let clock = Arc::new(NoonClock);
    AuditLog::start(&options(queue_slots), output.clone(), clock, Instruments::noop()).unwrap()
}

/// A record whose target is this text.
pub(super) fn record(event: AuditEvent, target: &str) -> AuditRecord {
    AuditRecord { target: Some(target.into()), ..AuditRecord::new(event, CallId::new(NOON)) }
}
