//! A target's stored events, then those that come: one ordered stream that can
//! be resumed.
//!
//! A watch *pulls*: it reads from the journal at its own pace, as its client
//! takes what it sends. Watches of one target share a `Tail`, which
//! spares those that keep up the reading and the encoding; whoever falls
//! behind reads the journal. Nothing is dropped for a slow client, and nothing
//! waits for one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{change::Change, state::ChangeState},
    invariants::Invariant,
    journal::{ChangeSelector, Cursor, Journal, JournalError, WatchTarget},
    telemetry::{Instruments, OpenWatch},
};

mod message;
mod tail;
mod tail_registry;
mod token;

pub use message::{Frame, MessageEncoder, ReconnectReason, WatchMessage};
pub use token::{InvalidResumeToken, ResumePoint, ResumeToken};

use tail::{Tail, TailBatch};
use tail_registry::TailRegistry;

/// All watches of one gateway.
pub struct Watches {
    journal: Arc<dyn Journal>,
    encoder: Arc<dyn MessageEncoder>,
    settings: WatchSettings,
    draining: CancellationToken,
    tail_registry: Arc<TailRegistry>,
    instruments: Instruments,
}

/// How long a stream lives, and how often it says that it does.
#[derive(Debug, Clone, Copy)]
pub struct WatchSettings {
    /// The greatest age of a stream; each takes up to a tenth less, so that
    /// those that began together do not end together.
    pub max_stream_age: Duration,
    /// The longest silence; each takes up to a third less.
    pub bookmark_interval: Duration,
}

/// What a client asks to watch.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// What, where the client named it.
    pub target: Option<WatchTarget>,
    /// From where: the token of the last event received.
    pub token: Option<ResumeToken>,
    /// How far.
    pub until: Until,
    /// Whether with the callbacks' bodies.
    pub include_raw: bool,
}

/// How far a watch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until the change is in a final state, or overdue.
    Settled,
    /// Until the change is in a final state.
    Finished,
    /// Until all that is stored has been delivered.
    CaughtUp,
}

/// Why a watch cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WatchOpenError {
    /// There is no such change.
    #[error("there is no such change")]
    NoSuchChange,
    /// The token is of another target than the one that was named.
    #[error("the resume token is of another watch")]
    TargetMismatch,
    /// Neither a target nor a token.
    #[error("nothing says what to watch")]
    NoTarget,
    /// The token's place is not in this journal any more, or never was.
    #[error("the resume token cannot be honoured: {why}")]
    Expired {
        /// What of it does not hold.
        why: &'static str,
        /// The oldest token of the target that works, where there is one.
        oldest: Option<ResumeToken>,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a stream ends without OK.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server ends it; the client was told with a `reconnect`.
    #[error("the server ends the stream; open it again with the last resume token")]
    Reconnect,
    /// The change was removed while it was watched: its retention is over.
    #[error("the change has been removed: its retention is over")]
    Removed,
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// One open stream.
pub struct Watch {
    watches: Arc<Watches>,
    /// Taken when it is dropped.
    tail: Option<Arc<Tail>>,
    generation: watch::Receiver<u64>,
    target: WatchTarget,
    until: Until,
    include_raw: bool,
    /// What has been read.
    cursor: Cursor,
    /// What has been delivered.
    token: ResumeToken,
    ready: VecDeque<Frame>,
    end: Option<Result<(), StreamError>>,
    ends_at: Instant,
    bookmark_at: Instant,
    _counted: OpenWatch,
}

/// Bytes of events after which no more are made ready: what one watch has for a client that does
/// not read.
const READY_BYTES: usize = 32 * 1024;

// === impl Watches ===

impl Watches {
    /// Watches of a journal. `draining` ends all streams with a `reconnect`.
    pub fn new(
        journal: Arc<dyn Journal>,
        encode: Arc<dyn MessageEncoder>,
        settings: WatchSettings,
        draining: CancellationToken,
        instruments: Instruments,
    ) -> Arc<Self> {
        let tails = Arc::new(TailRegistry::default());
        journal.add_commit_listener(tails.clone());
        Arc::new(Self {
            journal,
            encoder: encode,
            settings,
            draining,
            tail_registry: tails,
            instruments,
        })
    }

    /// Opens a stream. Its first frame is `opened`.
    pub async fn open(self: &Arc<Self>, request: WatchOptions) -> Result<Watch, WatchOpenError> {
        let token = self
            .resolve_start_token(request.target, request.token)
            .await?;
        let target = token.target.clone();
        let change = self.find_change(&target).await?;
        if change.is_none() && matches!(target, WatchTarget::Change(_)) {
            return Err(WatchOpenError::NoSuchChange);
        }
        let opened = WatchMessage::Opened(change.as_ref());
        let opened = Frame::new(self.encoder.encode(&token, opened));
        // Joined last: from here on the watch itself leaves it.
        let tail = self.tail_registry.get_or_create(&target, &self.journal);
        Ok(Watch {
            generation: tail.subscribe(),
            tail: Some(tail),
            target,
            until: request.until,
            include_raw: request.include_raw,
            cursor: match token.resume_point {
                ResumePoint::AfterEvent => resume_cursor(token.cursor),
                ResumePoint::AtFirstEvent | ResumePoint::NoEventsUpTo(_) => Cursor::START,
            },
            token,
            ready: VecDeque::from([opened]),
            end: None,
            ends_at: Instant::now() + with_jitter(self.settings.max_stream_age, 0.1),
            bookmark_at: self.next_bookmark(),
            _counted: self.instruments.open_watch(),
            watches: Arc::clone(self),
        })
    }

    /// Where the stream starts.
    async fn resolve_start_token(
        &self,
        target: Option<WatchTarget>,
        token: Option<ResumeToken>,
    ) -> Result<ResumeToken, WatchOpenError> {
        let token = match (target, token) {
            (Some(target), Some(token)) if target != token.target => {
                return Err(WatchOpenError::TargetMismatch);
            }
            (_, Some(token)) => token,
            (Some(target), None) => return Ok(self.start_token(target).await?),
            (None, None) => return Err(WatchOpenError::NoTarget),
        };
        self.validate_token(&token).await?;
        match token.resume_point {
            ResumePoint::AfterEvent => Ok(token),
            // As of now: what it says of is still there.
            ResumePoint::AtFirstEvent | ResumePoint::NoEventsUpTo(_) => {
                Ok(self.start_token(token.target).await?)
            }
        }
    }

    /// The token of a stream of all of a target's events. It says which is the first, or that there is none
    /// up to here: a stream that is resumed with it must not leave out what was removed meanwhile.
    async fn start_token(&self, target: WatchTarget) -> Result<ResumeToken, JournalError> {
        // Before the events: what comes in between is among them, or behind this position.
        let last = self.journal.coverage().await?.last;
        let page = self
            .journal
            .events(target.clone(), Cursor::START, 1)
            .await?;
        let (place, mark, side) = match page.events.first() {
            Some(event) => (event.cursor, event.event_hash, ResumePoint::AtFirstEvent),
            None => (Cursor::START, 0, ResumePoint::NoEventsUpTo(last)),
        };
        Ok(ResumeToken {
            epoch: self.journal.epoch(),
            cursor: place,
            event_hash: mark,
            resume_point: side,
            target,
        })
    }

    /// Refuses a token that does not name an event of this journal.
    async fn validate_token(&self, token: &ResumeToken) -> Result<(), WatchOpenError> {
        let why = if token.epoch != self.journal.epoch() {
            "it is of another journal, or of one that has lost something since"
        } else if let ResumePoint::NoEventsUpTo(position) = token.resume_point {
            // The journal does not store whether the removed events belonged to this target.
            let extent = self.journal.coverage().await?;
            if position > extent.last {
                "its place is beyond the journal's end"
            } else if extent.trimmed > position {
                "the events after it have been removed"
            } else {
                return Ok(());
            }
        } else {
            let found = self.journal.event_at(token.target.clone(), token.cursor);
            match found.await? {
                Some(event) if event.event_hash == token.event_hash => return Ok(()),
                Some(_) => "another event stands at its place",
                None if token.cursor.position > self.journal.coverage().await?.last => {
                    "its place is beyond the journal's end"
                }
                None => "the events after it have been removed",
            }
        };
        let is_known = match &token.target {
            WatchTarget::Change(_) => self.find_change(&token.target).await?.is_some(),
            WatchTarget::Request(_) => true,
        };
        let oldest = if is_known {
            Some(self.start_token(token.target.clone()).await?)
        } else {
            None
        };
        Err(WatchOpenError::Expired { why, oldest })
    }

    async fn find_change(&self, target: &WatchTarget) -> Result<Option<Change>, JournalError> {
        let name = match target {
            WatchTarget::Change(id) => ChangeSelector::Id(*id),
            WatchTarget::Request(id) => ChangeSelector::Request(id.clone()),
        };
        self.journal.change(name).await
    }

    fn next_bookmark(&self) -> Instant {
        Instant::now() + with_jitter(self.settings.bookmark_interval, 0.33)
    }
}

/// The place behind which a stream goes on.
fn resume_cursor(place: Cursor) -> Cursor {
    let one_off = u64::from(Invariant::ResumeAfterToken.is_disabled());
    Cursor {
        position: place.position.saturating_sub(one_off),
        ..place
    }
}

fn with_jitter(duration: Duration, max_fraction: f64) -> Duration {
    duration.mul_f64(1.0 - max_fraction * fastrand::f64())
}

// === impl Watch ===

impl Watch {
    /// The next frame; `None` when the stream has ended with OK.
    pub async fn next(&mut self) -> Option<Result<Frame, StreamError>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(Ok(frame));
            }
            match self.end.take() {
                Some(Ok(())) => {
                    self.end = Some(Ok(()));
                    return None;
                }
                Some(Err(error)) => {
                    self.end = Some(Ok(()));
                    return Some(Err(error));
                }
                None => {}
            }
            if let Err(error) = self.fill_ready().await {
                self.end = Some(Err(error.into()));
            }
        }
    }

    /// Makes the next frames ready, or waits for a reason to.
    async fn fill_ready(&mut self) -> Result<(), JournalError> {
        if self.watches.draining.is_cancelled() {
            self.push_reconnect(ReconnectReason::Drain);
            return Ok(());
        }
        if Instant::now() >= self.ends_at {
            self.push_reconnect(ReconnectReason::StreamAge);
            return Ok(());
        }
        self.generation.mark_unchanged();
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        match tail.read(self.cursor).await? {
            TailBatch::Events(events) => {
                let mut bytes = 0;
                for event in events {
                    self.cursor = event.token.cursor;
                    if let Some(frame) = event.frame(self.include_raw, &*self.watches.encoder) {
                        bytes += frame.bytes().len();
                        self.token = event.token.clone();
                        self.ready.push_back(frame);
                    }
                    // The rest is read again once these have been taken.
                    if bytes >= READY_BYTES {
                        break;
                    }
                }
                self.bookmark_at = self.watches.next_bookmark();
            }
            TailBatch::CaughtUp(change) => {
                if !self.try_finish(change.as_deref()) {
                    self.wait_for_wakeup().await;
                }
            }
        }
        Ok(())
    }

    /// Ends the stream if all that was asked for has been delivered.
    fn try_finish(&mut self, change: Option<&Change>) -> bool {
        let state = change.map(|change| change.state);
        if change.is_none() && matches!(self.target, WatchTarget::Change(_)) {
            self.end = Some(Err(StreamError::Removed));
            return true;
        }
        if let Some(change) = change.filter(|change| change.state.is_final()) {
            self.push_message(WatchMessage::Finished(change));
        } else if self.until == Until::CaughtUp
            || (self.until == Until::Settled && state == Some(ChangeState::Overdue))
        {
            self.push_message(WatchMessage::Bookmark);
        } else {
            return false;
        }
        self.end = Some(Ok(()));
        true
    }

    async fn wait_for_wakeup(&mut self) {
        tokio::select! {
            // An error would mean that the tail is gone, which this keeps.
            _news = self.generation.changed() => {}
            () = self.watches.draining.cancelled() => {}
            () = tokio::time::sleep_until(self.ends_at) => {}
            () = tokio::time::sleep_until(self.bookmark_at) => {
                self.bookmark_at = self.watches.next_bookmark();
                self.push_message(WatchMessage::Bookmark);
            }
        }
    }

    fn push_reconnect(&mut self, reason: ReconnectReason) {
        // Spread out what comes back, so that the next server is not met by
        // everybody at once.
        let retry_after = Duration::from_millis(fastrand::u64(0..1_000));
        self.push_message(WatchMessage::Reconnect {
            reason,
            retry_after,
        });
        self.end = Some(Err(StreamError::Reconnect));
    }

    fn push_message(&mut self, message: WatchMessage<'_>) {
        let bytes = self.watches.encoder.encode(&self.token, message);
        self.ready.push_back(Frame::new(bytes));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let tail = self.tail.take();
        self.watches.tail_registry.release(&self.target, tail);
    }
}

#[cfg(test)]
mod tests;
