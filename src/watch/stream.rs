//! Open watches: reads stored events, waits for new ones, and ends the stream.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::state::ChangeState,
    failpoints,
    journal::{Cursor, Journal, JournalError, WatchTarget},
    telemetry::{Instruments, OpenWatch},
    watch::{
        message::{EncodedResponse, MessageEncoder, ReconnectReason, WatchMessage},
        resume::{self, WatchOpenError},
        tail::{PendingRead, StreamEnd, Tail, TailKey, TailPage, TailRead, TailRegistry},
        token::{ResumePoint, ResumeToken},
    },
};

/// Opens the watches of one gateway.
pub struct Watches {
    journal: Arc<dyn Journal>,
    encoder: Arc<dyn MessageEncoder>,
    max_stream_age: Duration,
    draining: CancellationToken,
    pub(super) tail_registry: Arc<TailRegistry>,
    instruments: Instruments,
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
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// One open stream.
pub struct Watch {
    watches: Arc<Watches>,
    tail: Arc<Tail>,
    key: TailKey,
    until: Until,
    /// Cursor of the last event read.
    cursor: Cursor,
    /// Token of the last event delivered.
    pub(super) token: ResumeToken,
    /// A page of events, and the index of the next one.
    page: Option<(Arc<TailPage>, usize)>,
    /// The next page, and the generation before it was read. A watch that is far behind reads one page ahead.
    next_page: Option<(u64, PendingRead)>,
    /// A message to deliver before any event.
    next_message: Option<EncodedResponse>,
    end: Option<Result<(), StreamError>>,
    ends_at: Instant,
    bookmark_at: Instant,
    _open_watch: OpenWatch,
}

/// Each stream ends up to this fraction of the maximum age earlier.
const STREAM_AGE_JITTER: f64 = 0.1;
/// Maximum time between two messages of a stream.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// Each bookmark comes up to this fraction of the interval earlier.
const BOOKMARK_JITTER: f64 = 0.33;
/// Upper bound of the random delay after which clients reconnect.
const MAX_RECONNECT_DELAY_MS: u64 = 1_000;

impl Watches {
    /// Creates the watches of a journal. Each stream ends up to a tenth before `max_stream_age`, so that streams
    /// opened together do not end together. Cancelling `draining` ends all streams with a `reconnect` message.
    pub fn new(
        journal: Arc<dyn Journal>,
        encoder: Arc<dyn MessageEncoder>,
        max_stream_age: Duration,
        draining: CancellationToken,
        instruments: Instruments,
    ) -> Arc<Self> {
        let tail_registry = Arc::new(TailRegistry::default());
        journal.add_commit_listener(tail_registry.clone());
        Arc::new(Self { journal, encoder, max_stream_age, draining, tail_registry, instruments })
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
        // Last: an error after this line would leak the registry's entry.
        let tail = self.tail_registry.acquire(&key, &self.journal, &self.encoder);
        Ok(Watch {
            tail,
            key,
            until: options.until,
            cursor: match token.resume_point {
                ResumePoint::AfterEvent => resume_cursor(token.cursor),
                ResumePoint::AtFirstEvent | ResumePoint::NoEventsUpTo(_) => Cursor::START,
            },
            token,
            page: None,
            next_page: None,
            next_message: Some(opened),
            end: None,
            ends_at: Instant::now() + with_jitter(self.max_stream_age, STREAM_AGE_JITTER),
            bookmark_at: self.next_bookmark(),
            _open_watch: self.instruments.open_watch(),
            watches: Arc::clone(self),
        })
    }

    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> EncodedResponse {
        let mut out = BytesMut::new();
        self.encoder.encode(token, message, &mut out);
        EncodedResponse(out.freeze())
    }

    fn next_bookmark(&self) -> Instant {
        Instant::now() + with_jitter(BOOKMARK_INTERVAL, BOOKMARK_JITTER)
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
    /// Returns the next message, or `None` after the stream has ended.
    pub async fn next(&mut self) -> Option<Result<EncodedResponse, StreamError>> {
        loop {
            if let Some(response) = self.next_message.take() {
                return Some(Ok(response));
            }
            if let Some(response) = self.next_event() {
                return Some(Ok(response));
            }
            if let Some(end) = &mut self.end {
                return std::mem::replace(end, Ok(())).err().map(Err);
            }
            if let Err(error) = self.advance().await {
                self.end = Some(Err(error.into()));
            }
        }
    }

    /// Returns the next event of the page, if it has one that is delivered.
    fn next_event(&mut self) -> Option<EncodedResponse> {
        let (page, next) = self.page.as_mut()?;
        while let Some(event) = page.events.get(*next) {
            *next += 1;
            self.cursor = event.cursor;
            if let Some(response) = &event.response {
                (self.token.cursor, self.token.event_hash) = (event.cursor, event.event_hash);
                self.token.resume_point = ResumePoint::AfterEvent;
                self.token.removals = page.removed.count();
                return Some(response.clone());
            }
        }
        self.page = None;
        self.bookmark_at = self.watches.next_bookmark();
        None
    }

    /// Makes the next messages ready, ends the stream, or waits until either may be possible.
    async fn advance(&mut self) -> Result<(), JournalError> {
        if self.watches.draining.is_cancelled() {
            self.push_reconnect(ReconnectReason::Drain);
            return Ok(());
        }
        if Instant::now() >= self.ends_at {
            self.push_reconnect(ReconnectReason::StreamAge);
            return Ok(());
        }
        let removals = self.token.removals;
        let (generation, read) = match self.next_page.take() {
            Some((generation, pending)) => (generation, pending.await?),
            None => (self.tail.generation(), self.tail.read(self.cursor, removals).await?),
        };
        // Each page is read at another moment: events may have been removed since the page before. Before the
        // first page, the token has the first event of the change or request.
        if read.removed().has_removed_after(self.token.cursor, removals) {
            let is_account = matches!(self.token.target, WatchTarget::Account(_));
            let error = if is_account { StreamError::EventsRemoved } else { StreamError::Removed };
            self.end = Some(Err(error));
            return Ok(());
        }
        match read {
            TailRead::Events(page, from) => {
                let removals = page.removed.count();
                if page.has_more && !self.tail.has_cached(page.tip(), removals) {
                    let generation = self.tail.generation();
                    self.next_page = Some((generation, self.tail.start_read(page.tip(), removals)));
                }
                self.page = Some((page, from));
            }
            TailRead::End(end) => {
                if !self.try_finish(&end.state) {
                    self.wait_for_wakeup(generation).await;
                }
            }
        }
        Ok(())
    }

    /// Ends the stream if its `until` condition holds. All stored events must have been delivered.
    fn try_finish(&mut self, end: &StreamEnd) -> bool {
        match end {
            StreamEnd::NoChange if matches!(self.token.target, WatchTarget::Change(_)) => {
                self.end = Some(Err(StreamError::Removed));
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

    async fn wait_for_wakeup(&mut self, generation: u64) {
        tokio::select! {
            () = self.tail.touched_after(generation) => {}
            () = self.watches.draining.cancelled() => {}
            () = tokio::time::sleep_until(self.ends_at.min(self.bookmark_at)) => {
                if Instant::now() < self.ends_at {
                    self.bookmark_at = self.watches.next_bookmark();
                    self.push_message(WatchMessage::Bookmark);
                }
            }
        }
    }

    fn push_reconnect(&mut self, reason: ReconnectReason) {
        // A random delay spreads the reconnects over time.
        let retry_after = Duration::from_millis(fastrand::u64(0..MAX_RECONNECT_DELAY_MS));
        self.push_message(WatchMessage::Reconnect { reason, retry_after });
        self.end = Some(Err(StreamError::Reconnect));
    }

    fn push_message(&mut self, message: WatchMessage<'_>) {
        self.next_message = Some(self.watches.encode(&self.token, message));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.tail_registry.release(&self.key);
    }
}
