//! Follows the journal and attributes requests that no change owns to changes whose answer was lost.
//!
//! The journal decides what proves it, in one transaction. This module decides when the journal is asked:
//! once a request has been quiet, which means that no result of it arrived for
//! `changes.attribution_quiet_period`. Callbacks arrive one by one, so a foreign request for more
//! devices looks like ours until its last callback. For eSIM, ThingSpace is asked for the request's devices
//! first.
//!
//! The quiet period is measured by the monotonic clock, and anew after each start: a restart cannot tell
//! what would have arrived meanwhile, and the wall clock may have leapt.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        attribution::DeviceListStatus, change::Change, clock::Clock, evidence::LookupMethod,
        identifier::ReportedId, newtypes::RequestId, state::ChangeState,
    },
    invariants::Invariant,
    journal::{Attribution, ChangeFilter, CommitListener, Journal, JournalError, WatchTarget},
    operations,
    thingspace::{LookupError, ThingSpace},
};

/// Requests that are followed at a time. Beyond that, the requests of all unknown changes are listed again.
const MAX_FOLLOWED: usize = 4_096;
/// Requests that are looked at for one change.
const MAX_REQUESTS: usize = 1_000;
/// The shortest time between two questions about one request that was answered, and the time after which
/// all unknown changes are looked at again without news.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The first wait before ThingSpace is asked again after an answer that proves nothing. It doubles each
/// time, up to [`SWEEP_INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Requests of which the last question is remembered.
const MAX_TRACKED_QUERIES: usize = 1_000;
/// The pause after the journal could not be read or written.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);

/// The targets that the journal's commits have touched.
#[derive(Default)]
struct TouchedTargets {
    /// Requests, and when each was heard of last.
    requests: HashMap<RequestId, Instant>,
    /// When a request was heard of that is not followed for lack of room.
    overflowed_at: Option<Instant>,
    /// A change may have become unknown, or ceased to be a rival: look at all unknown changes.
    is_sweep_due: bool,
}

#[derive(Default)]
struct Mailbox {
    touched: Mutex<TouchedTargets>,
    arrived: Notify,
}

/// Attributes requests by evidence.
pub struct Attributor {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    mailbox: Arc<Mailbox>,
    quiet_period: Duration,
    /// Requests that ThingSpace was asked about.
    queries: Mutex<HashMap<RequestId, QueryBackoff>>,
}

/// When a request is asked about again, and how many answers in a row proved nothing.
#[derive(Debug, Clone, Copy)]
struct QueryBackoff {
    next_query: Instant,
    failures: u32,
}

/// ThingSpace's list of a request's devices.
enum RequestDevices {
    Listed(Vec<Vec<ReportedId>>),
    /// There is no list, or none that was received.
    Unavailable(DeviceListStatus),
}

// === impl Mailbox ===

impl CommitListener for Mailbox {
    fn on_commit(&self, touched: &[WatchTarget]) {
        if touched.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut news = self.touched.lock();
        for target in touched {
            match target {
                WatchTarget::Request(request) => {
                    let has_room = news.requests.len() < MAX_FOLLOWED;
                    if has_room || news.requests.contains_key(request) {
                        news.requests.insert(request.clone(), now);
                    } else {
                        news.overflowed_at = Some(now);
                        news.is_sweep_due = true;
                    }
                }
                WatchTarget::Change(_) => news.is_sweep_due = true,
            }
        }
        self.arrived.notify_one();
    }
}

/// The journal never drops its observers, so it gets a [`Weak`].
struct WeakMailbox(Weak<Mailbox>);

impl CommitListener for WeakMailbox {
    fn on_commit(&self, touched: &[WatchTarget]) {
        if let Some(mailbox) = self.0.upgrade() {
            mailbox.on_commit(touched);
        }
    }
}

// === impl Attributor ===

impl Attributor {
    /// Follows a journal from here on.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        quiet_period: Duration,
    ) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        journal.add_commit_listener(Arc::new(WeakMailbox(Arc::downgrade(&mailbox))));
        // Stored requests are followed from the start.
        mailbox.touched.lock().is_sweep_due = true;
        mailbox.arrived.notify_one();
        Self {
            journal,
            thingspace,
            clock,
            mailbox,
            quiet_period,
            queries: Mutex::default(),
        }
    }

    /// Attributes requests until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = async {
            if Invariant::QuietPeriodOverRestart.is_disabled() {
                self.follow_all_as_quiet().await;
            }
            let mut next_sweep = Instant::now();
            loop {
                let until_sweep = next_sweep.saturating_duration_since(Instant::now());
                let wait = self
                    .mailbox
                    .time_until_quiet(self.quiet_period)
                    .min(until_sweep);
                // Both outcomes mean that there may be something to look at.
                let _elapsed = timeout(wait, self.mailbox.arrived.notified()).await;
                let mut touched = self.mailbox.take_quiet(self.quiet_period);
                touched.is_sweep_due |= next_sweep <= Instant::now();
                if touched.is_sweep_due {
                    next_sweep = Instant::now() + SWEEP_INTERVAL;
                }
                if let Err(error) = self.process(&touched).await {
                    tracing::warn!(%error, "the journal failed; requests are attributed later");
                    self.mailbox.put_back(touched);
                    sleep(JOURNAL_RETRY).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    async fn process(&self, news: &TouchedTargets) -> Result<(), JournalError> {
        // As a rule nothing is unknown, and callbacks cost nothing here.
        if self.journal.state_counts().get(ChangeState::OutcomeUnknown) == 0 {
            return Ok(());
        }
        // Before others are followed: a request that is followed again is not quiet.
        for request in news.requests.keys() {
            self.attribute(request).await?;
        }
        if news.is_sweep_due {
            for request in self.find_unattributed().await? {
                self.mailbox.follow(request, Instant::now());
            }
        }
        Ok(())
    }

    /// Attributes at the start, as a broken build does.
    async fn follow_all_as_quiet(&self) {
        for request in self.find_unattributed().await.unwrap_or_default() {
            let long_ago = Instant::now().checked_sub(self.quiet_period);
            self.mailbox
                .follow(request, long_ago.unwrap_or_else(Instant::now));
        }
    }

    /// Requests that a change whose outcome is unknown may have made.
    async fn find_unattributed(&self) -> Result<HashSet<RequestId>, JournalError> {
        let mut found = HashSet::new();
        let mut filter = ChangeFilter {
            states: vec![ChangeState::OutcomeUnknown],
            limit: 100,
            ..ChangeFilter::default()
        };
        loop {
            let page = self.journal.changes(filter.clone()).await?;
            for change in page.changes {
                let requests = self
                    .journal
                    .unattributed_requests(change.change_id, MAX_REQUESTS);
                found.extend(requests.await?);
            }
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Attributes a request that has been quiet, if it is proven whose it is.
    async fn attribute(&self, request: &RequestId) -> Result<(), JournalError> {
        let attribute = |listed, last_result| {
            let now = self.clock.now();
            self.journal
                .attribute(request.clone(), listed, last_result, now)
        };
        let (change, last_result, is_whole) = match attribute(None, None).await? {
            Attribution::Whole {
                change,
                last_result,
            } => (change, last_result, true),
            Attribution::Part {
                change,
                last_result,
            } => (change, last_result, false),
            Attribution::Attributed(_) | Attribution::Unproven => return Ok(()),
        };
        // A commit is observed before it is answered: so `last_result` is as old as the quiet period.
        if !self.mailbox.is_still_quiet(request, self.quiet_period) {
            self.mailbox.follow(request.clone(), Instant::now());
            return Ok(());
        }
        let attribution = match self.fetch_devices(&change, request).await {
            RequestDevices::Listed(listed) => attribute(Some(listed), Some(last_result)).await?,
            RequestDevices::Unavailable(list) if is_whole && list.can_attribute() => {
                attribute(None, Some(last_result)).await?
            }
            RequestDevices::Unavailable(_) => return Ok(()),
        };
        match attribution {
            Attribution::Attributed(change) => {
                tracing::info!(change_id = %change.change_id, %request, "request attributed by evidence");
            }
            // The list lacks devices and may not be complete yet, or a result arrived meanwhile.
            Attribution::Part { .. } | Attribution::Whole { .. } => {
                self.schedule_query_retry(request)
            }
            Attribution::Unproven => {}
        }
        Ok(())
    }

    /// Asks for the devices of a request, where there can be an answer.
    async fn fetch_devices(&self, change: &Change, request: &RequestId) -> RequestDevices {
        if operations::evidence(change.change_type).lookup == LookupMethod::DeviceList {
            return RequestDevices::Unavailable(DeviceListStatus::Unsupported);
        }
        if let Err(again) = self.try_begin_query(request) {
            self.recheck_at(request, again);
            return RequestDevices::Unavailable(DeviceListStatus::Unanswered);
        }
        let devices = self.thingspace.request_status(&change.account, request);
        match devices.await {
            Ok(devices) if devices.is_empty() && !Invariant::ExclusiveDeviceList.is_disabled() => {
                tracing::debug!(%request, "ThingSpace's status of the request lists no devices");
                self.schedule_query_retry(request);
                RequestDevices::Unavailable(DeviceListStatus::Unanswered)
            }
            Ok(devices) => {
                RequestDevices::Listed(devices.into_iter().map(|device| device.ids).collect())
            }
            // The documentation does not say whether the status covers plan changes. Until ThingSpace has returned
            // one, a refusal means that it has none. After that, a refusal proves nothing.
            Err(LookupError::Refused(why)) if !self.thingspace.has_reported_status() => {
                tracing::debug!(%request, why, "ThingSpace has no status of requests");
                RequestDevices::Unavailable(DeviceListStatus::Unsupported)
            }
            Err(error) => {
                tracing::debug!(%request, %error, "ThingSpace's status of the request is not known");
                self.schedule_query_retry(request);
                RequestDevices::Unavailable(DeviceListStatus::Unanswered)
            }
        }
    }

    /// Notes a question about a request, or returns when the next one is allowed.
    fn try_begin_query(&self, request: &RequestId) -> Result<(), Instant> {
        let now = Instant::now();
        let again = now + SWEEP_INTERVAL;
        let mut asked = self.queries.lock();
        match asked.get_mut(request) {
            Some(last) if last.next_query > now => return Err(last.next_query),
            Some(last) => last.next_query = again,
            None => {
                if asked.len() >= MAX_TRACKED_QUERIES {
                    asked.retain(|_, last| last.next_query > now);
                }
                if asked.len() >= MAX_TRACKED_QUERIES {
                    return Err(again);
                }
                let first = QueryBackoff {
                    next_query: again,
                    failures: 0,
                };
                asked.insert(request.clone(), first);
            }
        }
        Ok(())
    }

    /// Asks again about a request of which the answer proved nothing.
    fn schedule_query_retry(&self, request: &RequestId) {
        let mut asked = self.queries.lock();
        let failures = asked.get(request).map_or(0, |last| last.failures);
        let wait = FIRST_RETRY.saturating_mul(1 << failures.min(10));
        let again = Instant::now() + wait.min(SWEEP_INTERVAL);
        let failures = failures.saturating_add(1);
        if asked.len() < MAX_TRACKED_QUERIES || asked.contains_key(request) {
            asked.insert(
                request.clone(),
                QueryBackoff {
                    next_query: again,
                    failures,
                },
            );
        }
        drop(asked);
        self.recheck_at(request, again);
    }

    /// Looks at a request again at a time, unless it is heard of before.
    fn recheck_at(&self, request: &RequestId, again: Instant) {
        if let Some(heard) = again.checked_sub(self.quiet_period) {
            self.mailbox.follow(request.clone(), heard);
        }
    }
}

impl Mailbox {
    /// Follows a request as if it had been heard of at this time, unless it is followed already.
    fn follow(&self, request: RequestId, heard: Instant) {
        let mut news = self.touched.lock();
        if news.requests.len() < MAX_FOLLOWED {
            news.requests.entry(request).or_insert(heard);
        }
    }

    /// The time until the first request has been quiet for long enough.
    fn time_until_quiet(&self, quiet_period: Duration) -> Duration {
        let news = self.touched.lock();
        let oldest = news.requests.values().min();
        oldest.map_or(Duration::MAX, |heard| {
            (*heard + quiet_period).saturating_duration_since(Instant::now())
        })
    }

    /// The requests that have been quiet for long enough, and whether changes have moved.
    fn take_quiet(&self, quiet_period: Duration) -> TouchedTargets {
        let now = Instant::now();
        let mut news = self.touched.lock();
        let (quiet, others) = std::mem::take(&mut news.requests)
            .into_iter()
            .partition(|(_, heard)| now.saturating_duration_since(*heard) >= quiet_period);
        news.requests = others;
        TouchedTargets {
            requests: quiet,
            overflowed_at: None,
            is_sweep_due: std::mem::take(&mut news.is_sweep_due),
        }
    }

    /// True if no result of a request has arrived since it was taken.
    fn is_still_quiet(&self, request: &RequestId, quiet_period: Duration) -> bool {
        let news = self.touched.lock();
        let none_dropped = news
            .overflowed_at
            .is_none_or(|dropped| dropped.elapsed() >= quiet_period);
        none_dropped && !news.requests.contains_key(request)
    }

    /// Takes back what could not be looked at. What was heard of since is kept.
    fn put_back(&self, old: TouchedTargets) {
        let mut news = self.touched.lock();
        news.is_sweep_due |= old.is_sweep_due;
        for (request, heard) in old.requests {
            news.requests.entry(request).or_insert(heard);
        }
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const QUIET: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_secs(1);

    fn request(number: usize) -> RequestId {
        RequestId::parse(format!("r-{number}")).unwrap()
    }

    fn commit_result(mailbox: &Mailbox, number: usize) {
        mailbox.on_commit(&[WatchTarget::Request(request(number))]);
    }

    fn take(mailbox: &Mailbox) -> Vec<RequestId> {
        mailbox.take_quiet(QUIET).requests.into_keys().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_quiet_when_no_result_arrived_for_the_whole_period() {
        let mailbox = Mailbox::default();
        commit_result(&mailbox, 1);
        advance(QUIET - SHORT).await;
        commit_result(&mailbox, 1);
        advance(QUIET - SHORT).await;
        assert!(take(&mailbox).is_empty());
        assert_eq!(mailbox.time_until_quiet(QUIET), SHORT);
        advance(SHORT).await;
        assert_eq!(take(&mailbox), [request(1)]);
        assert!(mailbox.is_still_quiet(&request(1), QUIET));
        commit_result(&mailbox, 1);
        assert!(!mailbox.is_still_quiet(&request(1), QUIET));
    }

    #[tokio::test(start_paused = true)]
    async fn following_a_request_again_does_not_begin_its_period_anew() {
        let mailbox = Mailbox::default();
        commit_result(&mailbox, 1);
        advance(QUIET).await;
        mailbox.follow(request(1), Instant::now());
        assert_eq!(take(&mailbox), [request(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_is_quiet_while_a_dropped_target_may_be_that_request() {
        let mailbox = Mailbox::default();
        commit_result(&mailbox, 0);
        advance(QUIET).await;
        for number in 1..MAX_FOLLOWED {
            commit_result(&mailbox, number);
        }
        commit_result(&mailbox, MAX_FOLLOWED);
        let news = mailbox.take_quiet(QUIET);
        let quiet: Vec<RequestId> = news.requests.into_keys().collect();
        assert_eq!((quiet, news.is_sweep_due), (vec![request(0)], true));
        assert!(!mailbox.is_still_quiet(&request(0), QUIET));
        advance(QUIET).await;
        assert!(mailbox.is_still_quiet(&request(0), QUIET));
    }
}
