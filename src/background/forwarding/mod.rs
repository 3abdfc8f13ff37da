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
    throttled_log::{BatchOutcome, ThrottledLog},
    webhook::{DeliveryError, WebhookClient},
};
use crate::{
    domain::{backoff::Backoff, clock::Clock},
    journal::{CommitListener, ForwardOutcome, Journal, JournalError, QueuedForward, WatchTarget},
    telemetry::Instruments,
};

mod throttled_log;
mod webhook;

/// Callbacks that are read, tried and settled together.
const BATCH_SIZE: usize = 32;
/// Callbacks that are on their way at a time.
const MAX_CONCURRENT_DELIVERIES: usize = 8;
/// So many of a page were tried before, if there are so many: neither they nor new ones wait for the
/// others.
const RETRIES_PER_BATCH: usize = 8;
/// The longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(10);
/// How long the webhook is left alone at a time before it is seen whether there is another one now.
const DESTINATION_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after the journal could not be read or written.
const JOURNAL_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The first wait before a callback is tried again, and the longest.
const RETRY_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// So many of those that are tried again are due in a second, at most: what a webhook refuses for days
/// must not keep it and the journal busy.
const MAX_RETRIES_PER_SECOND: u64 = 20;
/// But this is the longest wait that follows from it.
const MAX_RETRY_SPREAD: Duration = Duration::from_secs(3600);
/// The same for a webhook that is down: one callback is tried at a time then.
const OUTAGE_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often the same is told, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Where callbacks are passed on to.
#[derive(Debug)]
pub struct Destination {
    /// Its address, `{service}` in it standing for the service's name. May have a secret in it.
    pub url: SecretString,
    /// User name and password, which are put into the body as ThingSpace does.
    pub credentials: Option<(SecretString, SecretString)>,
    /// It is the callback listener itself: nothing is sent to it.
    pub is_own_listener: bool,
}

/// Where the destination comes from. Asked for each page, so that a rotated secret is seen.
pub trait DestinationSource: Send + Sync {
    /// The destination as it is now. Must not block.
    fn current(&self) -> Destination;
}

/// What passes callbacks on.
pub struct Forwarder {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    /// Decides what is too old.
    steady_clock: Arc<dyn Clock>,
    destination: Arc<dyn DestinationSource>,
    instruments: Instruments,
    max_age: Duration,
    webhook: WebhookClient,
    commit_signal: Arc<CommitSignal>,
    /// What became of tries and is not in the journal yet. Nothing is tried before it is.
    unsaved_results: Vec<(u64, ForwardOutcome)>,
    /// Pages in a row that found the webhook down.
    consecutive_outages: u32,
    /// Until then the webhook is left alone, whatever arrives.
    paused_until: Option<Instant>,
    /// Where the last page went, or was to go.
    last_destination: Option<Destination>,
    throttled_log: ThrottledLog,
    dropped: DroppedForwards,
}

/// There may be more to pass on.
#[derive(Default)]
struct CommitSignal(Notify);

/// What was given up, until it is told.
#[derive(Default)]
struct DroppedForwards {
    displaced_seen: u64,
    unlogged: u64,
    logged_at: Option<Instant>,
}

// === impl News ===

/// The journal keeps its observers for good: it is not to keep the room as well.
struct WakeOnCommit(Weak<CommitSignal>);

impl CommitListener for WakeOnCommit {
    fn on_commit(&self, _: &[WatchTarget]) {
        if let Some(signal) = self.0.upgrade() {
            signal.0.notify_one();
        }
    }
}

// === impl Destination ===

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
        let login = match (&self.credentials, &other.credentials) {
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
        let commit_signal = Arc::new(CommitSignal::default());
        journal.add_commit_listener(Arc::new(WakeOnCommit(Arc::downgrade(&commit_signal))));
        Self {
            journal,
            clock,
            steady_clock: steady,
            destination,
            instruments,
            max_age,
            webhook: WebhookClient::default(),
            commit_signal,
            unsaved_results: Vec::new(),
            consecutive_outages: 0,
            paused_until: None,
            last_destination: None,
            throttled_log: ThrottledLog::default(),
            dropped: DroppedForwards::default(),
        }
    }

    /// Passes on what there is, until `stop`. What is on its way then is tried again after the next
    /// start.
    pub async fn run(mut self, stop: CancellationToken) {
        let commit_signal = Arc::clone(&self.commit_signal);
        let rounds = async {
            loop {
                match self.run_batch().await {
                    // A webhook that takes nothing is not asked more often because more arrives.
                    Ok(wait) if self.paused_until.is_some() => sleep(wait).await,
                    Ok(wait) => {
                        let _news_or_time = timeout(wait, commit_signal.0.notified()).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "callbacks could not be passed on");
                        sleep(JOURNAL_RETRY_DELAY).await;
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
    async fn run_batch(&mut self) -> Result<Duration, JournalError> {
        self.save_results().await?;
        self.drop_expired().await?;
        self.refresh_destination().await?;
        if let Some(until) = self.paused_until {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Ok(left.min(DESTINATION_CHECK_INTERVAL));
            }
            self.paused_until = None;
        }
        if self.journal.forward_queue_stats().waiting == 0 {
            self.consecutive_outages = 0;
            return Ok(IDLE);
        }
        let now = self.clock.now();
        let (max_new, again) = match self.consecutive_outages {
            0 => (BATCH_SIZE - RETRIES_PER_BATCH, RETRIES_PER_BATCH),
            // By turns, since the old one may be what the webhook breaks at.
            failures => ((failures % 2) as usize, (failures % 2 == 0).into()),
        };
        let found = self.journal.due_forwards(now, max_new, again).await?;
        if found.due.is_empty() {
            let next = found.next_due.map_or(IDLE, |next| next.since(now));
            return Ok(next.min(IDLE));
        }
        self.send(found.due).await;
        self.save_results().await?;
        Ok(Duration::ZERO)
    }

    /// Another destination owes nothing to what became of tries at the last one. So may the first: it
    /// may be what the restart was for.
    async fn refresh_destination(&mut self) -> Result<(), JournalError> {
        let destination = self.destination.current();
        if self.last_destination.as_ref() == Some(&destination) {
            return Ok(());
        }
        let now = self.clock.now();
        while self.journal.reschedule_forwards(now).await? > 0 {}
        if self.last_destination.replace(destination).is_some() {
            tracing::info!("callbacks are passed on to another address, or with another pair");
        }
        (self.consecutive_outages, self.paused_until) = (0, None);
        Ok(())
    }

    /// Sends a page.
    async fn send(&mut self, batch: Vec<QueuedForward>) {
        let destination = self.destination.current();
        let target = self.webhook.target(&destination);
        let sent = batch.into_iter().map(|forward| {
            let target = &target;
            async move {
                let result = match target {
                    Ok(target) => target.deliver(&forward).await,
                    Err(failure) => Err(failure.clone()),
                };
                (forward, result)
            }
        });
        let sent: Vec<_> = stream::iter(sent)
            .buffer_unordered(MAX_CONCURRENT_DELIVERIES)
            .collect()
            .await;
        let outcome = self.collect_results(sent);
        if outcome.is_down {
            self.consecutive_outages = self.consecutive_outages.saturating_add(1);
        } else if outcome.has_answered {
            self.consecutive_outages = 0;
        }
        let pause = match self.consecutive_outages {
            0 => outcome.retry_after,
            failures => backoff(OUTAGE_BACKOFF, failures - 1).max(outcome.retry_after),
        };
        self.paused_until = (!pause.is_zero()).then(|| Instant::now() + pause);
        let waiting = self.journal.forward_queue_stats().waiting;
        let url_origin = target.map_or_else(|_| String::new(), |target| target.url_origin);
        self.throttled_log.log_batch(&outcome, &url_origin, waiting);
    }

    /// Takes what became of a page.
    fn collect_results(
        &mut self,
        sent: Vec<(QueuedForward, Result<(), DeliveryError>)>,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let mut again = Vec::new();
        for (forward, result) in sent {
            match result {
                Ok(()) => {
                    outcome.has_answered = true;
                    self.instruments.forwards("forwarded", None, 1);
                    self.unsaved_results
                        .push((forward.id, ForwardOutcome::Done));
                }
                Err(DeliveryError::Permanent(reason)) => {
                    self.instruments.forwards("given_up", Some(reason), 1);
                    self.dropped.unlogged += 1;
                    self.unsaved_results
                        .push((forward.id, ForwardOutcome::Done));
                }
                Err(DeliveryError::Rejected {
                    reason: why,
                    retry_after: wait,
                }) => {
                    outcome.has_answered = true;
                    outcome.failed_count += 1;
                    outcome.reason = outcome.reason.or(Some(why));
                    again.push((forward, wait));
                }
                Err(DeliveryError::Unavailable {
                    reason: why,
                    retry_after: wait,
                }) => {
                    outcome.failed_count += 1;
                    outcome.reason = Some(why);
                    outcome.is_down = true;
                    outcome.retry_after = outcome.retry_after.max(wait);
                    // The wait is the webhook's, not this callback's.
                    again.push((forward, Duration::ZERO));
                }
            }
        }
        outcome.is_down &= !outcome.has_answered;
        // What a webhook that is down did not take is not what keeps it busy.
        let retry_spread_secs = if outcome.is_down {
            0
        } else {
            self.retry_spread_secs()
        };
        for (forward, wait) in again {
            self.instruments.forwards("failed", None, 1);
            let retry_spread = Duration::from_secs(retry_spread_secs).min(MAX_RETRY_SPREAD);
            let wait = backoff(RETRY_BACKOFF, forward.attempts)
                .max(backoff((retry_spread, retry_spread), 0))
                .max(wait);
            let due = self.clock.now().plus(wait);
            self.unsaved_results
                .push((forward.id, ForwardOutcome::RetryAt(due)));
        }
        outcome
    }

    /// The seconds in which all that wait may be tried again.
    fn retry_spread_secs(&self) -> u64 {
        self.journal.forward_queue_stats().waiting / MAX_RETRIES_PER_SECOND
    }

    /// Puts into the journal what became of tries.
    async fn save_results(&mut self) -> Result<(), JournalError> {
        if !self.unsaved_results.is_empty() {
            self.journal
                .record_forward_outcomes(self.unsaved_results.clone())
                .await?;
            self.unsaved_results.clear();
        }
        Ok(())
    }

    /// Gives up what is too old, and tells what else was.
    async fn drop_expired(&mut self) -> Result<(), JournalError> {
        let displaced = self.journal.forward_queue_stats().displaced;
        let full = displaced.saturating_sub(std::mem::replace(
            &mut self.dropped.displaced_seen,
            displaced,
        ));
        if full > 0 {
            self.instruments.forwards("given_up", Some("full"), full);
        }
        self.dropped.unlogged += full;
        let is_time = |at: Instant| at.elapsed() >= LOG_INTERVAL;
        if !self.dropped.logged_at.is_none_or(is_time) {
            return Ok(());
        }
        let before = self.steady_clock.now().minus(self.max_age);
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
            self.dropped.unlogged += old;
        }
        self.dropped.logged_at = Some(Instant::now());
        let callbacks = std::mem::take(&mut self.dropped.unlogged);
        if callbacks > 0 {
            tracing::warn!(callbacks, "callbacks were given up and not passed on");
        }
        Ok(())
    }
}

fn backoff((initial, max): (Duration, Duration), failures: u32) -> Duration {
    let backoff = Backoff { initial, max };
    backoff.jittered_delay(failures.saturating_add(1), fastrand::f64())
}
