//! Passes callbacks on to somebody else's webhook: an account has one listener for each service, and
//! who registers the gateway takes it from whom it had before.
//!
//! Each callback that was stored is queued in the transaction that stored it, so that one that was
//! answered with 200 is passed on after any crash, at least once and in any order. Nothing here can
//! hold up the listener: what waits is bounded by number and age, and the oldest is given up.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    said::{Page, Said},
    webhook::{Failure, Webhook},
};
use crate::{
    domain::{backoff, clock::Clock},
    journal::{CommitListener, ForwardOutcome, Journal, JournalError, QueuedForward, WatchTarget},
    telemetry::Instruments,
};

mod said;
mod webhook;

/// Callbacks that are read, tried and settled together.
const PAGE: usize = 32;
/// Callbacks that are on their way at a time.
const AT_A_TIME: usize = 8;
/// So many of a page were tried before, if there are so many: neither they nor new ones wait for the
/// others.
const OLD: usize = 8;
/// The longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(10);
/// How long the webhook is left alone at a time before it is seen whether there is another one now.
const STEP: Duration = Duration::from_secs(5);
/// The pause after the journal could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);
/// The first wait before a callback is tried again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// So many of those that are tried again are due in a second, at most: what a webhook refuses for days
/// must not keep it and the journal busy.
const AGAIN_PER_SECOND: u64 = 20;
/// But this is the longest wait that follows from it.
const LONGEST: Duration = Duration::from_secs(3600);
/// The same for a webhook that is down: one callback is tried at a time then.
const PROBES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often the same is told, at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where callbacks are passed on to.
#[derive(Debug)]
pub struct Destination {
    /// Its address, `{service}` in it standing for the service's name. May have a secret in it.
    pub url: SecretString,
    /// User name and password, which are put into the body as ThingSpace does.
    pub login: Option<(SecretString, SecretString)>,
    /// It is the callback listener itself: nothing is sent to it.
    pub is_itself: bool,
}

/// Where the destination comes from. Asked for each page, so that a rotated secret is seen.
pub trait DestinationSource: Send + Sync {
    /// The destination as it is now. Must not block.
    fn read(&self) -> Destination;
}

/// What passes callbacks on.
pub struct Forwarder {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    /// Decides what is too old.
    steady: Arc<dyn Clock>,
    destination: Arc<dyn DestinationSource>,
    instruments: Instruments,
    max_age: Duration,
    webhook: Webhook,
    news: Arc<News>,
    /// What became of tries and is not in the journal yet. Nothing is tried before it is.
    unsettled: Vec<(u64, ForwardOutcome)>,
    /// Pages in a row that found the webhook down.
    failures: u32,
    /// Until then the webhook is left alone, whatever arrives.
    rest: Option<Instant>,
    /// Where the last page went, or was to go.
    known: Option<Destination>,
    said: Said,
    given_up: GivenUp,
}

/// There may be more to pass on.
#[derive(Default)]
struct News(Notify);

/// What was given up, until it is told.
#[derive(Default)]
struct GivenUp {
    displaced: u64,
    untold: u64,
    told_at: Option<Instant>,
}

// === impl News ===

/// The journal keeps its observers for good: it is not to keep the room as well.
struct Door(Weak<News>);

impl CommitListener for Door {
    fn on_commit(&self, _: &[WatchTarget]) {
        if let Some(news) = self.0.upgrade() {
            news.0.notify_one();
        }
    }
}

// === impl Destination ===

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
        let login = match (&self.login, &other.login) {
            (Some(one), Some(other)) => same(&one.0, &other.0) && same(&one.1, &other.1),
            (one, other) => one.is_none() && other.is_none(),
        };
        login && same(&self.url, &other.url)
    }
}

// === impl Forwarder ===

impl Forwarder {
    /// Follows a journal from here on; what waits in it already is passed on too. `max_age`: what
    /// could not be passed on for so long, by the `steady` clock, is given up.
    pub fn new(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        steady: Arc<dyn Clock>,
        destination: Arc<dyn DestinationSource>,
        instruments: Instruments,
        max_age: Duration,
    ) -> Self {
        let news = Arc::new(News::default());
        journal.add_commit_listener(Arc::new(Door(Arc::downgrade(&news))));
        Self {
            journal,
            clock,
            steady,
            destination,
            instruments,
            max_age,
            webhook: Webhook::default(),
            news,
            unsettled: Vec::new(),
            failures: 0,
            rest: None,
            known: None,
            said: Said::default(),
            given_up: GivenUp::default(),
        }
    }

    /// Passes on what there is, until `stop`. What is on its way then is tried again after the next
    /// start.
    pub async fn run(mut self, stop: CancellationToken) {
        let news = Arc::clone(&self.news);
        let rounds = async {
            loop {
                match self.round().await {
                    // A webhook that takes nothing is not asked more often because more arrives.
                    Ok(wait) if self.rest.is_some() => sleep(wait).await,
                    Ok(wait) => {
                        let _news_or_time = timeout(wait, news.0.notified()).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "callbacks could not be passed on");
                        sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = rounds => {}
        }
    }

    /// Tries a page; answers how long to wait for the next.
    async fn round(&mut self) -> Result<Duration, JournalError> {
        self.settle().await?;
        self.give_up().await?;
        self.look().await?;
        if let Some(until) = self.rest {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Ok(left.min(STEP));
            }
            self.rest = None;
        }
        if self.journal.forward_queue_stats().waiting == 0 {
            self.failures = 0;
            return Ok(IDLE);
        }
        let now = self.clock.now();
        let (fresh, again) = match self.failures {
            0 => (PAGE - OLD, OLD),
            // By turns, since the old one may be what the webhook breaks at.
            failures => ((failures % 2) as usize, (failures % 2 == 0).into()),
        };
        let found = self.journal.due_forwards(now, fresh, again).await?;
        if found.due.is_empty() {
            let next = found.next_due.map_or(IDLE, |next| next.since(now));
            return Ok(next.min(IDLE));
        }
        self.send(found.due).await;
        self.settle().await?;
        Ok(Duration::ZERO)
    }

    /// Another destination owes nothing to what became of tries at the last one. So may the first: it
    /// may be what the restart was for.
    async fn look(&mut self) -> Result<(), JournalError> {
        let destination = self.destination.read();
        if self.known.as_ref() == Some(&destination) {
            return Ok(());
        }
        let now = self.clock.now();
        while self.journal.reschedule_forwards(now).await? > 0 {}
        if self.known.replace(destination).is_some() {
            tracing::info!("callbacks are passed on to another address, or with another pair");
        }
        (self.failures, self.rest) = (0, None);
        Ok(())
    }

    /// Sends a page.
    async fn send(&mut self, page: Vec<QueuedForward>) {
        let destination = self.destination.read();
        let line = self.webhook.line(&destination);
        let sent = page.into_iter().map(|forward| {
            let line = &line;
            async move {
                let result = match line {
                    Ok(line) => line.pass_on(&forward).await,
                    Err(failure) => Err(failure.clone()),
                };
                (forward, result)
            }
        });
        let sent: Vec<_> = stream::iter(sent)
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        let page = self.judge(sent);
        if page.is_down {
            self.failures = self.failures.saturating_add(1);
        } else if page.answered {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => page.retry_after,
            failures => backoff(PROBES, failures - 1).max(page.retry_after),
        };
        self.rest = (!pause.is_zero()).then(|| Instant::now() + pause);
        let waiting = self.journal.forward_queue_stats().waiting;
        let place = line.map_or_else(|_| String::new(), |line| line.place);
        self.said.tell(&page, &place, waiting);
    }

    /// Takes what became of a page.
    fn judge(&mut self, sent: Vec<(QueuedForward, Result<(), Failure>)>) -> Page {
        let mut page = Page::default();
        let mut again = Vec::new();
        for (forward, result) in sent {
            match result {
                Ok(()) => {
                    page.answered = true;
                    self.instruments.forwards("forwarded", None, 1);
                    self.unsettled.push((forward.id, ForwardOutcome::Done));
                }
                Err(Failure::Never(reason)) => {
                    self.instruments.forwards("given_up", Some(reason), 1);
                    self.given_up.untold += 1;
                    self.unsettled.push((forward.id, ForwardOutcome::Done));
                }
                Err(Failure::Refused { why, wait }) => {
                    page.answered = true;
                    page.failed += 1;
                    page.why = page.why.or(Some(why));
                    again.push((forward, wait));
                }
                Err(Failure::Down { why, wait }) => {
                    page.failed += 1;
                    page.why = Some(why);
                    page.is_down = true;
                    page.retry_after = page.retry_after.max(wait);
                    // The wait is the webhook's, not this callback's.
                    again.push((forward, Duration::ZERO));
                }
            }
        }
        page.is_down &= !page.answered;
        // What a webhook that is down did not take is not what keeps it busy.
        let crowd = if page.is_down { 0 } else { self.crowd() };
        for (forward, wait) in again {
            self.instruments.forwards("failed", None, 1);
            let crowd = Duration::from_secs(crowd).min(LONGEST);
            let wait = backoff(BACKOFF, forward.tries)
                .max(backoff((crowd, crowd), 0))
                .max(wait);
            let due = self.clock.now().plus(wait);
            self.unsettled
                .push((forward.id, ForwardOutcome::RetryAt(due)));
        }
        page
    }

    /// The seconds in which all that wait may be tried again.
    fn crowd(&self) -> u64 {
        self.journal.forward_queue_stats().waiting / AGAIN_PER_SECOND
    }

    /// Puts into the journal what became of tries.
    async fn settle(&mut self) -> Result<(), JournalError> {
        if !self.unsettled.is_empty() {
            self.journal
                .record_forward_outcomes(self.unsettled.clone())
                .await?;
            self.unsettled.clear();
        }
        Ok(())
    }

    /// Gives up what is too old, and tells what else was.
    async fn give_up(&mut self) -> Result<(), JournalError> {
        let displaced = self.journal.forward_queue_stats().displaced;
        let full =
            displaced.saturating_sub(std::mem::replace(&mut self.given_up.displaced, displaced));
        if full > 0 {
            self.instruments.forwards("given_up", Some("full"), full);
        }
        self.given_up.untold += full;
        let is_time = |at: Instant| at.elapsed() >= TELL_EVERY;
        if !self.given_up.told_at.is_none_or(is_time) {
            return Ok(());
        }
        let before = self.steady.now().minus(self.max_age);
        loop {
            // Nothing is written where nothing waits.
            let old = match self.journal.forward_queue_stats().waiting {
                0 => 0,
                _ => self.journal.expire_forwards(before).await?,
            };
            if old == 0 {
                break;
            }
            let old = old as u64;
            self.instruments.forwards("given_up", Some("too_old"), old);
            self.given_up.untold += old;
        }
        self.given_up.told_at = Some(Instant::now());
        let callbacks = std::mem::take(&mut self.given_up.untold);
        if callbacks > 0 {
            tracing::warn!(callbacks, "callbacks were given up and not passed on");
        }
        Ok(())
    }
}

fn backoff(range: (Duration, Duration), failures: u32) -> Duration {
    backoff::delay(range, failures.saturating_add(1), fastrand::f64())
}
