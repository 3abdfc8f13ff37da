//! The writer: appends the queued lines in groups, on a thread of its own.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    audit::{
        error::RecordError,
        output::{AppendError, Output},
        record::AuditEvent,
        status::Status,
    },
    telemetry::{AuditOutcome, Instruments, LogThrottle},
};

/// Maximum size of the lines that one write appends.
const BATCH_BYTES: usize = 256 * 1024;
/// Interval of attempts to write while the log is failing.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time until a line without a waiting caller is synced.
const SYNC_DELAY: Duration = Duration::from_secs(1);
/// Interval of log lines about a log that cannot be written.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A queued line.
pub(super) struct Entry {
    pub(super) line: Vec<u8>,
    /// The line must be on disk before its caller is answered.
    pub(super) must_sync: bool,
    /// `None` if the caller has been answered.
    pub(super) done: Option<oneshot::Sender<Result<(), RecordError>>>,
    /// The place of the line in the queue. Lines of the log itself have none.
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

/// Makes a line of the log itself: of the event, with a count.
pub(super) type LogLine = Box<dyn Fn(AuditEvent, Option<u64>) -> Vec<u8> + Send>;

/// Writes the queued lines.
pub(super) struct Writer<O> {
    output: O,
    entries: Receiver<Entry>,
    status: Arc<Status>,
    log_line: LogLine,
    instruments: Instruments,
    throttle: LogThrottle,
    /// Lines that are not written yet, in their order. The slots bound their number.
    pending: VecDeque<Entry>,
    /// The time since when a written line is not synced.
    unsynced_since: Option<Instant>,
}

/// A group of lines for one write.
struct Batch {
    bytes: Vec<u8>,
    /// Length of the lines of the log itself, which come first.
    head: usize,
    /// Number of pending lines in it.
    entries: usize,
    must_sync: bool,
    /// The number of lost records that its head reports.
    lost: u64,
}

impl<O: Output> Writer<O> {
    pub(super) fn new(
        output: O,
        entries: Receiver<Entry>,
        status: Arc<Status>,
        log_line: LogLine,
        instruments: Instruments,
    ) -> Self {
        let throttle = LogThrottle::new(LOG_INTERVAL);
        let pending = VecDeque::new();
        Self {
            output,
            entries,
            status,
            log_line,
            instruments,
            throttle,
            pending,
            unsynced_since: None,
        }
    }

    /// Starts the thread. It ends when the sender of the entries is dropped and everything is written.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("audit-writer".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        self.push_log_line(AuditEvent::LogStarted);
        loop {
            let is_open = self.receive();
            if !is_open {
                self.push_log_line(AuditEvent::LogStopped);
            }
            while self.has_work() && self.write_batch() {
                if is_open {
                    self.pending.extend(self.entries.try_iter());
                }
            }
            if !is_open {
                return self.lose_pending();
            }
        }
    }

    /// True if lines are pending, or if an attempt to write is due.
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.status.is_failing()
    }

    /// Waits for lines: at most a second while the log is failing or lines are not synced. Returns false once the
    /// log is closed.
    fn receive(&mut self) -> bool {
        if self.status.is_failing() {
            return self.receive_while_failing();
        }
        if !self.pending.is_empty() {
            return true;
        }
        let first = match self.unsynced_since {
            Some(since) => self.entries.recv_timeout(SYNC_DELAY.saturating_sub(since.elapsed())),
            None => self.entries.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(entry) => {
                self.pending.push_back(entry);
                self.pending.extend(self.entries.try_iter());
                true
            }
            Err(RecvTimeoutError::Timeout) => {
                self.sync_late();
                true
            }
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Queues lines until the next attempt is due. Their callers do not wait.
    fn receive_while_failing(&mut self) -> bool {
        let retry = Instant::now() + RETRY_INTERVAL;
        loop {
            let left = retry.saturating_duration_since(Instant::now());
            match self.entries.recv_timeout(left) {
                Ok(mut entry) => {
                    entry.answer(Err(RecordError::Delayed));
                    self.pending.push_back(entry);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Syncs lines that no caller waits for.
    fn sync_late(&mut self) {
        let Self { status, output, .. } = self;
        self.unsynced_since = None;
        if let Err(error) = status.while_busy(|| output.sync()) {
            self.fail(&error);
        }
    }

    fn push_log_line(&mut self, event: AuditEvent) {
        let line = (self.log_line)(event, None);
        self.pending.push_back(Entry { line, must_sync: true, done: None, slot: None });
    }

    /// Writes the first pending lines, or only tries to sync if there are none. Returns false if the log is failing.
    fn write_batch(&mut self) -> bool {
        let status = Arc::clone(&self.status);
        match status.while_busy(|| self.try_write()) {
            Ok(()) => {
                if status.set_failing(false) {
                    tracing::info!("the audit log can be written again");
                }
                true
            }
            Err(error) => {
                self.fail(&error);
                false
            }
        }
    }

    fn try_write(&mut self) -> io::Result<()> {
        let pending_bytes = self.pending.iter().map(|entry| entry.line.len()).sum::<usize>();
        self.output.prepare(pending_bytes.min(BATCH_BYTES))?;
        let batch = self.next_batch();
        if let Err(AppendError { written, error }) = self.output.append(&batch.bytes) {
            if written < batch.head {
                self.status.add_lost(batch.lost);
            }
            let whole = self.whole_entries(written.saturating_sub(batch.head));
            if whole > 0 && (!batch.must_sync || self.output.sync().is_ok()) {
                self.complete(whole);
            }
            return Err(error);
        }
        if batch.must_sync || self.status.is_failing() {
            if let Err(error) = self.output.sync() {
                self.status.add_lost(batch.lost);
                return Err(error);
            }
            self.unsynced_since = None;
        } else {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        self.complete(batch.entries);
        Ok(())
    }

    /// Joins the first pending lines, after a newline if the last line is incomplete.
    fn next_batch(&mut self) -> Batch {
        let mut bytes = Vec::new();
        if self.output.is_torn() {
            bytes.push(b'\n');
            bytes.extend((self.log_line)(AuditEvent::LineRepaired, None));
        }
        let lost = self.status.take_lost();
        if lost > 0 {
            bytes.extend((self.log_line)(AuditEvent::RecordsLost, Some(lost)));
        }
        let head = bytes.len();
        let is_due = |since: Instant| since.elapsed() >= SYNC_DELAY;
        let must_sync = self.unsynced_since.is_some_and(is_due);
        let mut batch = Batch { bytes, head, entries: 0, must_sync, lost };
        for entry in &self.pending {
            if batch.entries > 0 && batch.bytes.len() + entry.line.len() > BATCH_BYTES {
                break;
            }
            batch.bytes.extend(&entry.line);
            batch.entries += 1;
            batch.must_sync |= entry.must_sync;
        }
        batch
    }

    /// Returns the number of pending lines within the first `written` bytes of theirs.
    fn whole_entries(&self, written: usize) -> usize {
        let ends = self.pending.iter().scan(0, |end, entry| {
            *end += entry.line.len();
            Some(*end)
        });
        ends.take_while(|end| *end <= written).count()
    }

    /// Answers the callers of the first pending lines, which are written.
    fn complete(&mut self, entries: usize) {
        let mut records = 0;
        for mut entry in self.pending.drain(..entries) {
            entry.answer(Ok(()));
            records += u64::from(entry.slot.is_some());
        }
        self.status.remove_queued(records);
        self.instruments.audit_records(AuditOutcome::Written, records);
    }

    fn fail(&mut self, error: &io::Error) {
        self.status.set_failing(true);
        if let Some(attempts) = self.throttle.count(1) {
            tracing::error!(
                %error,
                attempts,
                "cannot write the audit log: changes and commands of operators are rejected until it can be \
                 written. Check the disk and the permissions of audit.file, or the reader of the standard output"
            );
        }
        for entry in &mut self.pending {
            entry.answer(Err(RecordError::Delayed));
        }
    }

    /// Counts the lines that a closed log could not write.
    fn lose_pending(&mut self) {
        let is_record = |entry: &&Entry| entry.slot.is_some();
        let records = self.pending.iter().filter(is_record).count();
        if records > 0 {
            let records = u64::try_from(records).unwrap_or(u64::MAX);
            self.status.remove_queued(records);
            self.instruments.audit_records(AuditOutcome::Lost, records);
            tracing::error!(
                records,
                "records of the audit log are lost: it could not be written at the end"
            );
        }
        self.pending.clear();
    }
}

// === impl Entry ===

impl Entry {
    fn answer(&mut self, result: Result<(), RecordError>) {
        if let Some(done) = self.done.take() {
            // The caller may have stopped waiting.
            let _ = done.send(result);
        }
    }
}
