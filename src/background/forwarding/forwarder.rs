//! The forwarding loop: reads due callbacks, sends them, records the results.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    background::{
        LeaderJob,
        file_reloader::FileReloader,
        forwarding::{
            batch::{BatchOutcome, DeliveryLog},
            webhook::{DeliveryError, DestinationSettings, Webhook, forwarder_id},
        },
    },
    config::CallbacksConfig,
    domain::{backoff::Backoff, clock::Clock},
    journal::{Commit, CommitListener, ForwardOutcome, Journal, JournalError, QueuedForward},
    telemetry::{DeliveryOutcome, DropReason, Instruments},
};

/// Maximum number of callbacks that are read, sent and recorded together.
const BATCH_SIZE: usize = 32;
/// Maximum number of concurrent deliveries.
const MAX_CONCURRENT_DELIVERIES: usize = 8;
/// Share of a batch for retries, so that neither retries nor new callbacks block the others.
const RETRIES_PER_BATCH: usize = 8;
/// Longest wait when nothing is due.
const IDLE: Duration = Duration::from_secs(10);
/// Interval of checks for a new destination during a pause.
const DESTINATION_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after an error of the journal.
const JOURNAL_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Interval between two searches for callbacks past `callbacks.forward_max_age`.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Delays before a callback is sent again.
const RETRY_BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(300) };
/// Pauses while the webhook is down.
const OUTAGE_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30) };
/// Maximum number of retries a second. A webhook that rejects callbacks for days must not keep itself
/// and the journal busy.
const MAX_RETRIES_PER_SECOND: u64 = 20;
/// Longest delay that follows from this limit.
const MAX_RETRY_SPREAD: Duration = Duration::from_secs(3600);

/// Forwards queued callbacks.
pub struct Forwarder {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    /// Measures the age of callbacks.
    steady_clock: Arc<dyn Clock>,
    instruments: Instruments,
    max_age: Duration,
    settings: DestinationSettings,
    /// Id of this gateway for the loop header.
    forwarder_id: String,
    /// Webhook of the last batch.
    webhook: Option<Arc<Webhook>>,
    commits: Arc<Notify>,
    /// Results that are not in the journal yet. Nothing is sent before they are.
    unsaved_results: Vec<(u64, ForwardOutcome)>,
    /// Number of batches in a row that found the webhook down.
    consecutive_outages: u32,
    /// Nothing is sent before this time.
    paused_until: Option<Instant>,
    expired_at: Option<Instant>,
    /// Number of callbacks that a full queue has displaced, as of the last check.
    displaced_seen: u64,
    log: DeliveryLog,
}

/// Wakes the forwarder after each commit.
impl CommitListener for Notify {
    fn on_commit(&self, _: &Commit) {
        self.notify_one();
    }
}

impl LeaderJob for Forwarder {
    /// Forwards callbacks. Unfinished deliveries are repeated after the next start.
    async fn run(&mut self) {
        loop {
            match self.run_batch().await {
                // New callbacks do not shorten a pause.
                Ok(wait) if self.paused_until.is_some() => sleep(wait).await,
                Ok(wait) => {
                    let _commit_or_timeout = timeout(wait, self.commits.notified()).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot forward callbacks: journal error");
                    sleep(JOURNAL_RETRY_DELAY).await;
                }
            }
        }
    }
}

impl Forwarder {
    /// Creates a forwarder. Returns `None` if `callbacks.forward_url` is not set. `steady_clock`
    /// measures the age of callbacks.
    pub fn new(
        callbacks: &CallbacksConfig,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        steady_clock: Arc<dyn Clock>,
        instruments: Instruments,
        files: &mut FileReloader,
    ) -> Option<Self> {
        let Some(settings) = DestinationSettings::load(callbacks, files) else {
            let pending = journal.forward_queue_stats().waiting;
            if pending > 0 {
                tracing::warn!(
                    pending,
                    "callbacks wait to be forwarded, but callbacks.forward_url is not set"
                );
            }
            return None;
        };
        let commits = Arc::new(Notify::new());
        journal.add_commit_listener(Arc::<Notify>::clone(&commits));
        Some(Self {
            forwarder_id: forwarder_id(&*journal),
            journal,
            clock,
            steady_clock,
            instruments,
            max_age: callbacks.forward_max_age,
            settings,
            webhook: None,
            commits,
            unsaved_results: Vec::new(),
            consecutive_outages: 0,
            paused_until: None,
            expired_at: None,
            displaced_seen: 0,
            log: DeliveryLog::new(),
        })
    }

    /// Sends a batch. Returns the time until the next one.
    async fn run_batch(&mut self) -> Result<Duration, JournalError> {
        self.save_results().await?;
        self.drop_expired().await?;
        let webhook = self.refresh_webhook().await?;
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
        let (max_new, max_retries) = match self.consecutive_outages {
            0 => (BATCH_SIZE - RETRIES_PER_BATCH, RETRIES_PER_BATCH),
            // One callback, alternately a new and an old one: the old one may be what breaks the webhook.
            outages => ((outages % 2) as usize, (outages % 2 == 0).into()),
        };
        let found = self.journal.due_forwards(now, max_new, max_retries).await?;
        if found.due.is_empty() {
            let next = found.next_due.map_or(IDLE, |next| next.since(now));
            return Ok(next.min(IDLE));
        }
        self.send(&webhook, found.due).await;
        self.save_results().await?;
        Ok(Duration::ZERO)
    }

    /// Changing the destination resets its retry state. So does a restart, which may be the fix.
    async fn refresh_webhook(&mut self) -> Result<Arc<Webhook>, JournalError> {
        let destination = self.settings.current();
        let current = self.webhook.as_ref().filter(|webhook| webhook.destination == destination);
        if let Some(webhook) = current
            && webhook.client.is_some()
        {
            return Ok(Arc::clone(webhook));
        }
        let is_same = current.is_some();
        // Also builds a client again that could not be built before.
        let webhook = Arc::new(Webhook::new(destination, self.forwarder_id.clone()));
        if is_same {
            self.webhook = Some(Arc::clone(&webhook));
            return Ok(webhook);
        }
        let now = self.clock.now();
        while self.journal.reschedule_forwards(now).await? > 0 {}
        if self.webhook.replace(Arc::clone(&webhook)).is_some() {
            tracing::info!("forward destination changed");
        }
        self.log.reset_loop();
        (self.consecutive_outages, self.paused_until) = (0, None);
        Ok(webhook)
    }

    async fn send(&mut self, webhook: &Webhook, batch: Vec<QueuedForward>) {
        let deliveries = batch.into_iter().map(|forward| async move {
            let result = webhook.deliver(&forward).await;
            (forward, result)
        });
        let results =
            stream::iter(deliveries).buffer_unordered(MAX_CONCURRENT_DELIVERIES).collect().await;
        let outcome = self.collect_results(results, &webhook.url_origin);
        if outcome.is_down {
            self.consecutive_outages = self.consecutive_outages.saturating_add(1);
        } else if outcome.has_answered {
            self.consecutive_outages = 0;
        }
        let pause = match self.consecutive_outages {
            0 => outcome.retry_after,
            outages => jittered(OUTAGE_BACKOFF, outages).max(outcome.retry_after),
        };
        self.paused_until = (!pause.is_zero()).then(|| Instant::now() + pause);
        let pending = self.journal.forward_queue_stats().waiting;
        self.log.log_batch(&outcome, &webhook.url_origin, pending);
    }

    /// Counts the results of a batch and prepares them for the journal.
    fn collect_results(
        &mut self,
        results: Vec<(QueuedForward, Result<(), DeliveryError>)>,
        url_origin: &str,
    ) -> BatchOutcome {
        let mut outcome = BatchOutcome::default();
        let mut failed = Vec::new();
        for (forward, result) in results {
            match result {
                Ok(()) => {
                    outcome.has_answered = true;
                    self.instruments.deliveries(DeliveryOutcome::Delivered, None, 1);
                    self.unsaved_results.push((forward.id, ForwardOutcome::Done));
                }
                Err(DeliveryError::Permanent(reason)) => {
                    if reason == DropReason::Loop {
                        self.log.log_loop(url_origin);
                    }
                    self.count_dropped(reason, 1);
                    self.unsaved_results.push((forward.id, ForwardOutcome::Done));
                }
                Err(DeliveryError::Rejected { reason, retry_after }) => {
                    outcome.has_answered = true;
                    outcome.reason = outcome.reason.or(Some(reason));
                    failed.push((forward, retry_after));
                }
                Err(DeliveryError::Unavailable { reason, retry_after }) => {
                    outcome.reason = Some(reason);
                    outcome.is_down = true;
                    outcome.retry_after = outcome.retry_after.max(retry_after);
                    // The whole webhook pauses, so the callback has no delay of its own.
                    failed.push((forward, Duration::ZERO));
                }
            }
        }
        outcome.is_down &= !outcome.has_answered;
        outcome.failed_count = failed.len() as u64;
        // While the webhook is down, one callback is sent at a time: retries need no spreading.
        let pending = if outcome.is_down { 0 } else { self.journal.forward_queue_stats().waiting };
        for (forward, retry_after) in failed {
            self.instruments.deliveries(DeliveryOutcome::Failed, None, 1);
            let backoff = jittered(RETRY_BACKOFF, forward.attempts.saturating_add(1));
            let delay = backoff.max(retry_spread(pending)).max(retry_after);
            let due = self.clock.now().plus(delay);
            self.unsaved_results.push((forward.id, ForwardOutcome::RetryAt(due)));
        }
        outcome
    }

    async fn save_results(&mut self) -> Result<(), JournalError> {
        if !self.unsaved_results.is_empty() {
            self.journal.record_forward_outcomes(self.unsaved_results.clone()).await?;
            self.unsaved_results.clear();
        }
        Ok(())
    }

    /// Drops callbacks past the maximum age, and counts those that a full queue has displaced.
    async fn drop_expired(&mut self) -> Result<(), JournalError> {
        let displaced = self.journal.forward_queue_stats().displaced;
        let seen = std::mem::replace(&mut self.displaced_seen, displaced);
        self.count_dropped(DropReason::QueueFull, displaced.saturating_sub(seen));
        if self.expired_at.is_some_and(|at| at.elapsed() < EXPIRY_INTERVAL) {
            return Ok(());
        }
        let before = self.steady_clock.now().minus(self.max_age);
        // An empty queue causes no write.
        while self.journal.forward_queue_stats().waiting > 0 {
            let expired = self.journal.expire_forwards(before).await?;
            if expired == 0 {
                break;
            }
            self.count_dropped(DropReason::Expired, expired as u64);
        }
        self.expired_at = Some(Instant::now());
        Ok(())
    }

    fn count_dropped(&self, reason: DropReason, callbacks: u64) {
        if callbacks > 0 {
            self.instruments.deliveries(DeliveryOutcome::Dropped, Some(reason), callbacks);
        }
        self.log.log_dropped(callbacks);
    }
}

/// Returns a random delay that spreads the retries of this number of callbacks over time.
fn retry_spread(pending: u64) -> Duration {
    let spread = Duration::from_secs(pending / MAX_RETRIES_PER_SECOND).min(MAX_RETRY_SPREAD);
    jittered(Backoff { initial: spread, max: spread }, 1)
}

fn jittered(backoff: Backoff, failures: u32) -> Duration {
    backoff.jittered_delay(failures, fastrand::f64())
}
