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
    broken::Rule,
    domain::change::{Change, ChangeState},
    journal::{ChangeSelector, Cursor, Journal, JournalError, WatchTarget},
    telemetry::{Instruments, OpenWatch},
};

mod frame;
mod tail;
mod tails;
mod token;

pub use frame::{Encode, Frame, Message, ReconnectReason};
pub use token::{Side, Token, UnreadableToken};

use tail::{Batch, Tail};
use tails::Tails;

/// All watches of one gateway.
pub struct Watches {
    journal: Arc<dyn Journal>,
    encode: Arc<dyn Encode>,
    settings: Settings,
    draining: CancellationToken,
    tails: Arc<Tails>,
    instruments: Instruments,
}

/// How long a stream lives, and how often it says that it does.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The greatest age of a stream; each takes up to a tenth less, so that
    /// those that began together do not end together.
    pub max_stream_age: Duration,
    /// The longest silence; each takes up to a third less.
    pub bookmark_interval: Duration,
}

/// What a client asks to watch.
#[derive(Debug, Clone)]
pub struct Request {
    /// What, where the client named it.
    pub target: Option<WatchTarget>,
    /// From where: the token of the last event received.
    pub token: Option<Token>,
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
pub enum OpenError {
    /// There is no such change.
    #[error("there is no such change")]
    NoSuchChange,
    /// The token is of another target than the one that was named.
    #[error("the resume token is of another watch")]
    OtherTarget,
    /// Neither a target nor a token.
    #[error("nothing says what to watch")]
    NoTarget,
    /// The token's place is not in this journal any more, or never was.
    #[error("the resume token cannot be honoured: {why}")]
    Expired {
        /// What of it does not hold.
        why: &'static str,
        /// The oldest token of the target that works, where there is one.
        oldest: Option<Token>,
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
    news: watch::Receiver<u64>,
    target: WatchTarget,
    until: Until,
    include_raw: bool,
    /// What has been read.
    cursor: Cursor,
    /// What has been delivered.
    token: Token,
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
        encode: Arc<dyn Encode>,
        settings: Settings,
        draining: CancellationToken,
        instruments: Instruments,
    ) -> Arc<Self> {
        let tails = Arc::new(Tails::default());
        journal.add_commit_listener(tails.clone());
        Arc::new(Self {
            journal,
            encode,
            settings,
            draining,
            tails,
            instruments,
        })
    }

    /// Opens a stream. Its first frame is `opened`.
    pub async fn open(self: &Arc<Self>, request: Request) -> Result<Watch, OpenError> {
        let token = self.start(request.target, request.token).await?;
        let target = token.target.clone();
        let change = self.change(&target).await?;
        if change.is_none() && matches!(target, WatchTarget::Change(_)) {
            return Err(OpenError::NoSuchChange);
        }
        let opened = Message::Opened(change.as_ref());
        let opened = Frame::new(self.encode.encode(&token, opened));
        // Joined last: from here on the watch itself leaves it.
        let tail = self.tails.join(&target, &self.journal);
        Ok(Watch {
            news: tail.subscribe(),
            tail: Some(tail),
            target,
            until: request.until,
            include_raw: request.include_raw,
            cursor: match token.side {
                Side::After => after(token.place),
                Side::Before | Side::NoneUpTo(_) => Cursor::START,
            },
            token,
            ready: VecDeque::from([opened]),
            end: None,
            ends_at: Instant::now() + less_up_to(self.settings.max_stream_age, 0.1),
            bookmark_at: self.next_bookmark(),
            _counted: self.instruments.open_watch(),
            watches: Arc::clone(self),
        })
    }

    /// Where the stream starts.
    async fn start(
        &self,
        target: Option<WatchTarget>,
        token: Option<Token>,
    ) -> Result<Token, OpenError> {
        let token = match (target, token) {
            (Some(target), Some(token)) if target != token.target => {
                return Err(OpenError::OtherTarget);
            }
            (_, Some(token)) => token,
            (Some(target), None) => return Ok(self.beginning_of(target).await?),
            (None, None) => return Err(OpenError::NoTarget),
        };
        self.check(&token).await?;
        match token.side {
            Side::After => Ok(token),
            // As of now: what it says of is still there.
            Side::Before | Side::NoneUpTo(_) => Ok(self.beginning_of(token.target).await?),
        }
    }

    /// The token of a stream of all of a target's events. It says which is the first, or that there is none
    /// up to here: a stream that is resumed with it must not leave out what was removed meanwhile.
    async fn beginning_of(&self, target: WatchTarget) -> Result<Token, JournalError> {
        // Before the events: what comes in between is among them, or behind this position.
        let last = self.journal.coverage().await?.last;
        let page = self
            .journal
            .events(target.clone(), Cursor::START, 1)
            .await?;
        let (place, mark, side) = match page.events.first() {
            Some(event) => (event.cursor, event.event_hash, Side::Before),
            None => (Cursor::START, 0, Side::NoneUpTo(last)),
        };
        Ok(Token {
            epoch: self.journal.epoch(),
            place,
            mark,
            side,
            target,
        })
    }

    /// Refuses a token that does not name an event of this journal.
    async fn check(&self, token: &Token) -> Result<(), OpenError> {
        let why = if token.epoch != self.journal.epoch() {
            "it is of another journal, or of one that has lost something since"
        } else if let Side::NoneUpTo(position) = token.side {
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
            let found = self.journal.event_at(token.target.clone(), token.place);
            match found.await? {
                Some(event) if event.event_hash == token.mark => return Ok(()),
                Some(_) => "another event stands at its place",
                None if token.place.position > self.journal.coverage().await?.last => {
                    "its place is beyond the journal's end"
                }
                None => "the events after it have been removed",
            }
        };
        let is_known = match &token.target {
            WatchTarget::Change(_) => self.change(&token.target).await?.is_some(),
            WatchTarget::Request(_) => true,
        };
        let oldest = if is_known {
            Some(self.beginning_of(token.target.clone()).await?)
        } else {
            None
        };
        Err(OpenError::Expired { why, oldest })
    }

    async fn change(&self, target: &WatchTarget) -> Result<Option<Change>, JournalError> {
        let name = match target {
            WatchTarget::Change(id) => ChangeSelector::Id(*id),
            WatchTarget::Request(id) => ChangeSelector::Request(id.clone()),
        };
        self.journal.change(name).await
    }

    fn next_bookmark(&self) -> Instant {
        Instant::now() + less_up_to(self.settings.bookmark_interval, 0.33)
    }
}

/// The place behind which a stream goes on.
fn after(place: Cursor) -> Cursor {
    let one_off = u64::from(Rule::TokenPlace.is_broken());
    Cursor {
        position: place.position.saturating_sub(one_off),
        ..place
    }
}

fn less_up_to(duration: Duration, share: f64) -> Duration {
    duration.mul_f64(1.0 - share * fastrand::f64())
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
            if let Err(error) = self.advance().await {
                self.end = Some(Err(error.into()));
            }
        }
    }

    /// Makes the next frames ready, or waits for a reason to.
    async fn advance(&mut self) -> Result<(), JournalError> {
        if self.watches.draining.is_cancelled() {
            self.reconnect(ReconnectReason::Drain);
            return Ok(());
        }
        if Instant::now() >= self.ends_at {
            self.reconnect(ReconnectReason::StreamAge);
            return Ok(());
        }
        self.news.mark_unchanged();
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        match tail.read(self.cursor).await? {
            Batch::Events(events) => {
                let mut bytes = 0;
                for event in events {
                    self.cursor = event.token.place;
                    if let Some(frame) = event.frame(self.include_raw, &*self.watches.encode) {
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
            Batch::End(change) => {
                if !self.settle(change.as_deref()) {
                    self.wait().await;
                }
            }
        }
        Ok(())
    }

    /// Ends the stream if all that was asked for has been delivered.
    fn settle(&mut self, change: Option<&Change>) -> bool {
        let state = change.map(|change| change.state);
        if change.is_none() && matches!(self.target, WatchTarget::Change(_)) {
            self.end = Some(Err(StreamError::Removed));
            return true;
        }
        if let Some(change) = change.filter(|change| change.state.is_final()) {
            self.say(Message::Finished(change));
        } else if self.until == Until::CaughtUp
            || (self.until == Until::Settled && state == Some(ChangeState::Overdue))
        {
            self.say(Message::Bookmark);
        } else {
            return false;
        }
        self.end = Some(Ok(()));
        true
    }

    async fn wait(&mut self) {
        tokio::select! {
            // An error would mean that the tail is gone, which this keeps.
            _news = self.news.changed() => {}
            () = self.watches.draining.cancelled() => {}
            () = tokio::time::sleep_until(self.ends_at) => {}
            () = tokio::time::sleep_until(self.bookmark_at) => {
                self.bookmark_at = self.watches.next_bookmark();
                self.say(Message::Bookmark);
            }
        }
    }

    fn reconnect(&mut self, reason: ReconnectReason) {
        // Spread out what comes back, so that the next server is not met by
        // everybody at once.
        let retry_after = Duration::from_millis(fastrand::u64(0..1_000));
        self.say(Message::Reconnect {
            reason,
            retry_after,
        });
        self.end = Some(Err(StreamError::Reconnect));
    }

    fn say(&mut self, message: Message<'_>) {
        let bytes = self.watches.encode.encode(&self.token, message);
        self.ready.push_back(Frame::new(bytes));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let tail = self.tail.take();
        self.watches.tails.leave(&self.target, tail);
    }
}

#[cfg(test)]
mod tests;
