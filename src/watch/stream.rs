//! Open watches: reads stored events, waits for new ones, and ends the stream.

use std::{
    fmt::Debug,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    sync::futures::OwnedNotified,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{backoff::Backoff, state::ChangeState},
    failpoints,
    journal::{Cursor, Journal, JournalError, WatchTarget},
    telemetry::{Instruments, OpenWatch},
    watch::{
        message::{MessageEncoder, ReconnectReason, WatchMessage, encode_frame},
        page::{StreamEnd, TailKey, TailPage},
        resume::{self, WatchOpenError},
        tail::{CachedRead, PendingRead, Tail, TailRead, TailRegistry},
        token::{ResumePoint, ResumeToken},
    },
};

/// Opens the watches of one gateway.
pub struct Watches {
    journal: Arc<dyn Journal>,
    encoder: Arc<dyn MessageEncoder>,
    times: StreamTimes,
    pub(super) tail_registry: Arc<TailRegistry>,
    instruments: Instruments,
}

/// Times that apply to all streams.
#[derive(Debug, Clone, Copy)]
pub struct StreamTimes {
    /// Age at which a stream ends with a `reconnect` message. Each stream ends up to a tenth earlier, so that
    /// streams opened together do not end together.
    pub max_age: Duration,
    /// Maximum time between two messages of a stream. Each bookmark comes up to a third earlier.
    pub bookmark_interval: Duration,
}

/// The right of a client to receive a stream. It can end before the stream does.
pub trait StreamAccess: Debug + Send + Sync + 'static {
    /// True while the client may receive the stream. Called after each [`Watches::check_access`].
    fn is_allowed(&self) -> bool;

    /// Time at which the right ends. `None` if it has no end.
    fn expires_at(&self) -> Option<Instant>;
}

/// A client's request to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// The change, request or account to watch. `None` takes the target of `token`.
    pub target: Option<WatchTarget>,
    /// The token of the last message that the client received.
    pub token: Option<ResumeToken>,
    /// Condition that ends the stream.
    pub until: Until,
    /// True to include the bodies of callbacks.
    pub include_raw: bool,
    /// Time at which the stream ends with [`StreamError::DeadlineExceeded`].
    pub deadline: Option<Instant>,
    /// The right of the client. `None` if it has no end.
    pub access: Option<Arc<dyn StreamAccess>>,
}

/// Condition that ends a stream with OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The change is in a final state, or OVERDUE.
    Settled,
    /// The change is in a final state.
    Finished,
    /// All stored events have been delivered.
    CaughtUp,
}

/// Error that ends a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server ends the stream, after a `reconnect` message.
    #[error("the server ends the stream; open it again with the last resume token")]
    Reconnect,
    /// Retention removed the change or request during the watch.
    #[error("the change or request has been removed: its retention is over")]
    Removed,
    /// Retention removed events of the account that the stream had not delivered.
    #[error("events after the last resume token have been removed: their retention is over")]
    EventsRemoved,
    /// The journal has lost events, perhaps some that the stream has delivered.
    #[error("the journal has lost data: open the stream again from the start")]
    DataLost,
    /// The deadline of the call has passed.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// The journal cannot be read for minutes.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// One open stream.
pub struct Watch {
    watches: Arc<Watches>,
    tail: Arc<Tail>,
    until: Until,
    /// Cursor of the last event read.
    cursor: Cursor,
    /// Token of the last event delivered.
    pub(super) token: ResumeToken,
    /// A page of events, and the index of the next one.
    page: Option<(Arc<TailPage>, usize)>,
    /// A read of the next page. A watch that is behind starts it with the last messages of a page.
    next_page: Option<PendingRead>,
    /// The time of the first failed read since the last one that succeeded, and the number of failed reads.
    failing_since: Option<(Instant, u32)>,
    /// A message to deliver before any event.
    next_message: Option<Bytes>,
    end: Option<Result<(), Box<StreamError>>>,
    ends_at: Instant,
    bookmark_at: Instant,
    deadline: Option<Instant>,
    access: Option<Arc<dyn StreamAccess>>,
    access_ends_at: Option<Instant>,
    /// [`TailRegistry::access_changes`] at the last check of `access`.
    checked_access: u64,
    /// Completes at the earliest of these times, or before.
    timer: Pin<Box<Sleep>>,
    /// Completes when the tail notifies its watches.
    touched: Pin<Box<OwnedNotified>>,
    /// True if the watch waits for `touched`.
    is_waiting: bool,
    _open_watch: OpenWatch,
}

/// Each stream ends up to this fraction of the maximum age earlier.
const STREAM_AGE_JITTER: f64 = 0.1;
/// Each bookmark comes up to this fraction of the interval earlier.
const BOOKMARK_JITTER: f64 = 0.33;
/// Delays between attempts to read the journal.
const READ_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(2) };
/// Time for which a watch tries to read a journal that fails. A database may need minutes for a failover.
const MAX_READ_FAILURE: Duration = Duration::from_secs(5 * 60);
/// Upper bound of the random delay after which clients reconnect.
const MAX_RECONNECT_DELAY_MS: u64 = 1_000;

impl Watches {
    /// Creates the watches of a journal. Cancelling `draining` ends all streams with a `reconnect` message.
    /// Must be called in a Tokio runtime.
    pub fn new(
        journal: Arc<dyn Journal>,
        encoder: Arc<dyn MessageEncoder>,
        times: StreamTimes,
        draining: CancellationToken,
        instruments: Instruments,
    ) -> Arc<Self> {
        let tail_registry = TailRegistry::new(Arc::clone(&journal), Arc::clone(&encoder));
        journal.add_commit_listener(tail_registry.clone());
        let registry = Arc::clone(&tail_registry);
        tokio::spawn(async move {
            draining.cancelled().await;
            registry.start_draining();
        });
        Arc::new(Self { journal, encoder, times, tail_registry, instruments })
    }

    /// Opens a stream. Its first message is `opened`.
    pub async fn open(self: &Arc<Self>, options: WatchOptions) -> Result<Watch, WatchOpenError> {
        let journal = &*self.journal;
        let token = resume::resolve_start(journal, options.target, options.token).await?;
        let change = resume::find_change(journal, &token.target).await?;
        if change.is_none() && matches!(token.target, WatchTarget::Change(_)) {
            return Err(WatchOpenError::NoSuchChange);
        }
        let opened = self.encode(&token, WatchMessage::Opened(change.as_ref()));
        let key = TailKey { target: token.target.clone(), include_raw: options.include_raw };
        let ends_at = Instant::now() + with_jitter(self.times.max_age, STREAM_AGE_JITTER);
        let bookmark_at = self.next_bookmark();
        let access_ends_at = options.access.as_ref().and_then(|access| access.expires_at());
        // Last: an error after this line would leak the registry's entry.
        let tail = self.tail_registry.acquire(&key);
        let mut watch = Watch {
            until: options.until,
            cursor: match token.resume_point {
                ResumePoint::AfterEvent => resume_cursor(token.cursor),
                ResumePoint::AtFirstEvent | ResumePoint::NoEventsUpTo(_) => Cursor::START,
            },
            token,
            page: None,
            next_page: None,
            failing_since: None,
            next_message: Some(opened),
            end: None,
            ends_at,
            bookmark_at,
            deadline: options.deadline,
            // The rights may have changed since the caller checked them: the first poll checks them again.
            checked_access: 0,
            access: options.access,
            access_ends_at,
            timer: Box::pin(sleep_until(ends_at)),
            touched: Box::pin(tail.touched()),
            is_waiting: false,
            _open_watch: self.instruments.open_watch(),
            tail,
            watches: Arc::clone(self),
        };
        watch.reset_timer();
        Ok(watch)
    }

    /// Makes all streams check the rights of their clients, which may have changed.
    pub fn check_access(&self) {
        self.tail_registry.check_access();
    }

    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> Bytes {
        let mut out = BytesMut::new();
        encode_frame(&*self.encoder, token, message, &mut out);
        out.freeze()
    }

    fn next_bookmark(&self) -> Instant {
        Instant::now() + with_jitter(self.times.bookmark_interval, BOOKMARK_JITTER)
    }
}

/// The cursor after which a resumed stream continues.
fn resume_cursor(cursor: Cursor) -> Cursor {
    let off_by_one = u64::from(failpoints::is_active("token-off-by-one"));
    Cursor { position: cursor.position.saturating_sub(off_by_one), ..cursor }
}

fn with_jitter(duration: Duration, max_fraction: f64) -> Duration {
    duration.mul_f64(1.0 - max_fraction * fastrand::f64())
}

impl Watch {
    /// Returns the next messages. See [`Self::poll_next`].
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the next messages, each with its length prefix ("gRPC over HTTP2"), or `None` after the stream has
    /// ended.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        loop {
            if let Some(message) = self.next_message.take() {
                return Poll::Ready(Some(Ok(message)));
            }
            // Before each chunk: a client that reads slowly may have a page left.
            if self.end.is_none() && !self.check_access() {
                self.page = None;
                self.push_reconnect(ReconnectReason::CredentialExpired);
                continue;
            }
            if self.watches.journal.epoch() == self.token.epoch
                && let Some(frames) = self.next_chunk()
            {
                return Poll::Ready(Some(Ok(frames)));
            }
            if let Some(end) = &mut self.end {
                let end = std::mem::replace(end, Ok(()));
                return Poll::Ready(end.err().map(|error| Err(*error)));
            }
            if self.watches.journal.epoch() != self.token.epoch {
                self.fail(StreamError::DataLost);
                continue;
            }
            if self.watches.tail_registry.is_draining() {
                self.push_reconnect(ReconnectReason::Drain);
                continue;
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                self.on_timer();
                continue;
            }
            if let Some(read) = &mut self.next_page {
                let Poll::Ready(read) = Pin::new(read).poll(cx) else {
                    if self.failing_since.is_some() {
                        // A drain does not wait for the journal.
                        ready!(self.touched.as_mut().poll(cx));
                        self.touched.set(self.tail.touched());
                        continue;
                    }
                    return Poll::Pending;
                };
                self.next_page = None;
                match read {
                    Ok(read) => {
                        self.failing_since = None;
                        self.on_read(read, None);
                    }
                    Err(error) => self.on_read_error(error),
                }
                continue;
            }
            if self.is_waiting {
                ready!(self.touched.as_mut().poll(cx));
                self.is_waiting = false;
            }
            let removals = self.token.removals;
            match self.tail.read_cached(self.cursor, removals) {
                CachedRead::Events(page, from) => self.on_read(TailRead::Events(page, from), None),
                CachedRead::End(generation, end) => {
                    self.on_read(TailRead::End(end), Some(generation));
                }
                CachedRead::Stale => self.wait(None),
                CachedRead::Missing => {
                    self.next_page = Some(self.tail.start_read(self.cursor, removals));
                }
            }
        }
    }

    /// Returns the next messages of the page, if it has more.
    fn next_chunk(&mut self) -> Option<Bytes> {
        let (page, next) = self.page.as_mut()?;
        while let Some(chunk) = page.next_chunk(next) {
            self.cursor = chunk.tip;
            if let Some(event) = chunk.last_delivered {
                (self.token.cursor, self.token.event_hash) = (event.cursor, event.event_hash);
                self.token.resume_point = ResumePoint::AfterEvent;
                let removals = page.removed.count();
                self.token.removals = removals;
                // Not before, so that a client that does not read keeps two pages: this and the next one.
                if page.needs_next_page(*next) && !self.tail.has_cached(chunk.tip, removals) {
                    self.next_page = Some(self.tail.start_read(chunk.tip, removals));
                }
                return Some(chunk.frames);
            }
        }
        self.page = None;
        self.bookmark_at = self.watches.next_bookmark();
        None
    }

    /// Makes the events that were read the next messages. At the end of the stored events, ends the stream, or waits
    /// for more. `generation` is the one in which the tail saw the end.
    fn on_read(&mut self, read: TailRead, generation: Option<u64>) {
        // Each page is read at another moment: events may have been removed since the page before. Before the
        // first page, the token has the first event of the change or request.
        if read.removed().has_removed_after(self.token.cursor, self.token.removals) {
            let is_account = matches!(self.token.target, WatchTarget::Account(_));
            self.fail(if is_account { StreamError::EventsRemoved } else { StreamError::Removed });
            return;
        }
        match read {
            TailRead::Events(page, from) => self.page = Some((page, from)),
            TailRead::End(end) => {
                if !self.try_finish(&end.state) && generation.is_some() {
                    self.wait(generation);
                }
            }
        }
    }

    /// Reads again after a delay, unless the journal has failed for too long.
    fn on_read_error(&mut self, error: JournalError) {
        let (since, failures) = self.failing_since.unwrap_or((Instant::now(), 0));
        if since.elapsed() > MAX_READ_FAILURE {
            self.fail(error.into());
            return;
        }
        tracing::debug!(%error, "a watch cannot read the journal; retrying");
        self.failing_since = Some((since, failures + 1));
        self.touched.set(self.tail.touched());
        let delay = READ_BACKOFF.jittered_delay(failures + 1, fastrand::f64());
        let removals = self.token.removals;
        self.next_page = Some(self.tail.start_delayed_read(delay, self.cursor, removals));
    }

    /// Starts to wait for events after the cursor, unless there are some.
    fn wait(&mut self, generation: Option<u64>) {
        // Before the check, so that no notification in between is missed.
        self.touched.set(self.tail.touched());
        self.is_waiting = self.tail.prepare_wait(self.cursor, generation);
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.fail(StreamError::DeadlineExceeded);
        } else if now >= self.ends_at {
            self.push_reconnect(ReconnectReason::StreamAge);
        } else if now >= self.bookmark_at {
            self.bookmark_at = self.watches.next_bookmark();
            if self.is_waiting {
                self.push_message(WatchMessage::Bookmark);
            }
        }
        self.reset_timer();
    }

    /// Sets the timer to the next time at which the stream has to act.
    fn reset_timer(&mut self) {
        let optional = [self.deadline, self.access_ends_at].into_iter().flatten();
        let next = optional.fold(self.ends_at.min(self.bookmark_at), Instant::min);
        self.timer.as_mut().reset(next);
    }

    /// True if the client may still receive the stream. Checks its rights only if they may have changed.
    fn check_access(&mut self) -> bool {
        if self.access_ends_at.is_some_and(|end| Instant::now() >= end) {
            return false;
        }
        let changes = self.watches.tail_registry.access_changes();
        if self.checked_access == changes {
            return true;
        }
        self.checked_access = changes;
        self.access.as_ref().is_none_or(|access| access.is_allowed())
    }

    /// Ends the stream if its `until` condition holds. All stored events must have been delivered.
    fn try_finish(&mut self, end: &StreamEnd) -> bool {
        match end {
            StreamEnd::NoChange if matches!(self.token.target, WatchTarget::Change(_)) => {
                self.fail(StreamError::Removed);
                return true;
            }
            StreamEnd::Final(change) => self.push_message(WatchMessage::Finished(change)),
            StreamEnd::Open(ChangeState::Overdue) if self.until == Until::Settled => {
                self.push_message(WatchMessage::Bookmark);
            }
            _ if self.until == Until::CaughtUp => self.push_message(WatchMessage::Bookmark),
            _ => return false,
        }
        self.end = Some(Ok(()));
        true
    }

    fn push_reconnect(&mut self, reason: ReconnectReason) {
        // A random delay spreads the reconnects over time.
        let retry_after = Duration::from_millis(fastrand::u64(0..MAX_RECONNECT_DELAY_MS));
        self.push_message(WatchMessage::Reconnect { reason, retry_after });
        self.fail(StreamError::Reconnect);
    }

    /// Ends the stream after the messages that are ready.
    fn fail(&mut self, error: StreamError) {
        self.end = Some(Err(Box::new(error)));
    }

    fn push_message(&mut self, message: WatchMessage<'_>) {
        self.next_message = Some(self.watches.encode(&self.token, message));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.tail_registry.release(self.tail.key());
    }
}
