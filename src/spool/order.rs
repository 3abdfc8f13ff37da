//! Decides which callbacks go to the journal directly and which to the spool, so that their order is kept.

use std::sync::mpsc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    domain::clock::Timestamp,
    journal::{JournalError, Result},
    spool::{
        database::{Content, NewRecord},
        writer::{Append, Command},
    },
};

/// Maximum number of queued appends. Further callbacks are rejected.
pub(super) const MAX_QUEUED: usize = 16_384;

/// The state of a spool. One lock protects it.
#[derive(Debug)]
pub(super) struct Order {
    /// Maximum size of the database and of the queued appends, in bytes.
    max_bytes: u64,
    /// The id of the next callback. All callbacks get one, in the order of their arrival.
    next_id: i64,
    /// Direct appends to the journal in progress.
    direct: usize,
    /// Callbacks that are in the spool or queued for it, and that the journal has not acknowledged.
    pending: u64,
    /// Appends to the spool that are not committed.
    queued: usize,
    queued_bytes: u64,
    /// The content of the database after the last commit.
    content: Content,
    /// True if the last commit failed.
    is_failing: bool,
    /// Commands to the writer; `None` once the spool is closed.
    commands: Option<mpsc::Sender<Command>>,
    /// The period since the spool ceased to be empty.
    period: Option<Period>,
}

/// A period in which callbacks were spooled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) begin: Instant,
    /// Callbacks that were moved.
    pub(super) settled: u64,
    /// True if its begin was logged, so that its end is logged too.
    pub(super) is_logged: bool,
}

/// A callback that the spool receives.
pub(super) struct Arrival {
    pub(super) receive_time: Timestamp,
    pub(super) record: Vec<u8>,
}

/// Receives the result of an append to the spool.
pub(super) type AppendReply = oneshot::Receiver<Result<()>>;

impl Period {
    fn new() -> Self {
        Self { begin: Instant::now(), settled: 0, is_logged: false }
    }
}

impl Order {
    pub(super) fn new(max_bytes: u64, content: Content, commands: mpsc::Sender<Command>) -> Self {
        Self {
            max_bytes,
            next_id: content.last_id.saturating_add(1),
            direct: 0,
            pending: content.callbacks,
            queued: 0,
            queued_bytes: 0,
            content,
            is_failing: false,
            commands: Some(commands),
            period: (content.callbacks > 0).then(|| Period { is_logged: true, ..Period::new() }),
        }
    }

    /// Begins a direct append, unless a callback is pending. Returns the id of the callback.
    pub(super) fn begin_direct(&mut self) -> Option<i64> {
        if self.pending > 0 {
            return None;
        }
        self.direct += 1;
        Some(self.take_id())
    }

    /// Ends a direct append. A callback that the journal did not store is spooled by [`spool`](Self::spool) under
    /// the same lock.
    pub(super) fn end_direct(&mut self) {
        self.direct = self.direct.saturating_sub(1);
    }

    pub(super) fn take_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }

    /// Queues a callback for the spool. Commands are sent under the lock, so they are in the order of the ids.
    pub(super) fn spool(&mut self, id: i64, arrival: Arrival) -> Result<AppendReply> {
        let Arrival { receive_time, record } = arrival;
        let bytes = u64::try_from(record.len()).unwrap_or(u64::MAX);
        if self.queued >= MAX_QUEUED {
            return Err(JournalError::Overloaded);
        }
        if self.used_bytes().saturating_add(bytes) > self.max_bytes {
            return Err(JournalError::Unavailable("the spool is full".to_owned()));
        }
        let closed = || JournalError::Unavailable("the spool is closed".to_owned());
        let commands = self.commands.as_ref().ok_or_else(closed)?;
        let (reply, receiver) = oneshot::channel();
        let append = Append { record: NewRecord { id, receive_time, record }, reply };
        commands.send(Command::Append(append)).map_err(|_| closed())?;
        self.pending += 1;
        self.queued += 1;
        self.queued_bytes += bytes;
        self.period.get_or_insert_with(Period::new);
        Ok(receiver)
    }

    /// Records that the begin of the period was logged.
    pub(super) fn set_logged(&mut self) {
        if let Some(period) = &mut self.period {
            period.is_logged = true;
        }
    }

    /// Records that the writer has committed appends, or that the commit failed and they are in no spool.
    pub(super) fn end_appends(&mut self, appends: usize, bytes: u64, is_committed: bool) {
        self.queued = self.queued.saturating_sub(appends);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
        if !is_committed {
            let failed = u64::try_from(appends).unwrap_or(u64::MAX);
            self.pending = self.pending.saturating_sub(failed);
            if self.pending == 0 {
                self.period = None;
            }
        }
    }

    /// Records that spooled callbacks are in the journal, or cannot be moved. Returns the period if they were the
    /// last ones: from now on, callbacks go to the journal directly.
    pub(super) fn settle(&mut self, callbacks: usize) -> Option<Period> {
        let callbacks = u64::try_from(callbacks).unwrap_or(u64::MAX);
        self.pending = self.pending.saturating_sub(callbacks);
        if let Some(period) = &mut self.period {
            period.settled += callbacks;
        }
        if self.pending == 0 { self.period.take() } else { None }
    }

    /// Returns true if the mover may read the spool: it is complete in the order of arrival.
    pub(super) fn is_movable(&self) -> bool {
        self.pending > 0 && self.direct == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Returns true if the spool is empty, and the database too.
    pub(super) fn is_drained(&self) -> bool {
        self.pending == 0 && self.content.callbacks == 0
    }

    /// Returns true if the spool can take a callback.
    pub(super) fn has_room(&self) -> bool {
        self.commands.is_some()
            && !self.is_failing
            && self.queued < MAX_QUEUED
            && self.used_bytes() < self.max_bytes
    }

    fn used_bytes(&self) -> u64 {
        self.content.bytes.saturating_add(self.queued_bytes)
    }

    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    pub(super) fn content(&self) -> Content {
        self.content
    }

    pub(super) fn set_content(&mut self, content: Content) {
        self.content = content;
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    pub(super) fn set_failing(&mut self, is_failing: bool) {
        self.is_failing = is_failing;
    }

    /// Returns the channel to the writer.
    pub(super) fn commands(&self) -> Option<mpsc::Sender<Command>> {
        self.commands.clone()
    }

    /// Closes the channel: the writer ends after the queued commands.
    pub(super) fn close(&mut self) {
        self.commands = None;
    }
}
