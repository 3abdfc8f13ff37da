//! Attributes quiet requests.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    background::{LeaderJob, attribution::quiet_requests::QuietRequests},
    domain::{
        backoff::Backoff, change::Change, clock::Clock, evidence::LookupMethod,
        identifier::ReportedId, newtypes::RequestId, state::ChangeState,
    },
    failpoints,
    journal::{Attribution, ChangeFilter, Journal, JournalError},
    operations,
    thingspace::{LookupError, ThingSpace},
};

/// Maximum number of requests that are considered for one change.
const MAX_REQUESTS: usize = 1_000;
/// The interval of sweeps over all changes with an unknown outcome, and the shortest interval of lookups of
/// one request that succeeded.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest interval of sweeps. A sweep reads all changes with an unknown outcome.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Delays between lookups of one request that prove nothing.
const LOOKUP_BACKOFF: Backoff = Backoff { initial: Duration::from_secs(1), max: SWEEP_INTERVAL };
/// Maximum number of requests whose last lookup is remembered.
const MAX_TRACKED_LOOKUPS: usize = 1_000;
/// Delay after an error of the journal.
const JOURNAL_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Attributes requests to changes.
pub struct Attributor {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    requests: Arc<QuietRequests>,
    attribution_quiet_period: Duration,
    lookups: Mutex<HashMap<RequestId, LookupState>>,
}

/// The lookups of one request.
struct LookupState {
    next: Instant,
    /// Consecutive lookups that proved nothing.
    failures: u32,
}

/// The result of looking up the devices of a request.
enum RequestDevices {
    Listed(Vec<Vec<ReportedId>>),
    /// ThingSpace has no such list for the operation.
    Unsupported,
    /// The lookup failed, or the list was empty: the request may have more devices than were seen.
    Unanswered,
}

impl LeaderJob for Attributor {
    /// Attributes requests.
    async fn run(&mut self) {
        self.attribute_requests().await;
    }
}

impl Attributor {
    /// Creates an attributor that follows the commits of a journal from now on.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        attribution_quiet_period: Duration,
    ) -> Self {
        let requests = Arc::new(QuietRequests::new(journal.coordination().is_some()));
        journal.add_commit_listener(Arc::<QuietRequests>::clone(&requests));
        Self {
            journal,
            thingspace,
            clock,
            requests,
            attribution_quiet_period,
            lookups: Mutex::default(),
        }
    }

    async fn attribute_requests(&self) {
        if failpoints::is_active("quiet-at-start") {
            // Skips the quiet period after a start.
            let long_ago = Instant::now().checked_sub(self.attribution_quiet_period);
            for request in self.find_unattributed().await.unwrap_or_default() {
                self.requests.follow(request, long_ago.unwrap_or_else(Instant::now));
            }
        }
        // The first sweep follows the requests that are stored already.
        let mut next_sweep = Instant::now();
        let mut last_sweep = next_sweep;
        loop {
            let until_sweep = next_sweep.saturating_duration_since(Instant::now());
            let until_quiet = self.requests.time_until_quiet(self.attribution_quiet_period);
            let touched = self.requests.touched_again.notified();
            // Either outcome can mean that a request is quiet.
            let _elapsed = timeout(until_quiet.min(until_sweep), touched).await;
            let (quiet, has_new_candidates) =
                self.requests.take_quiet(self.attribution_quiet_period);
            let now = Instant::now();
            if has_new_candidates {
                next_sweep = next_sweep.min(last_sweep + MIN_SWEEP_INTERVAL).max(now);
            }
            let is_sweep_due = next_sweep <= now;
            if is_sweep_due {
                (last_sweep, next_sweep) = (now, now + SWEEP_INTERVAL);
            }
            if let Err(error) = self.process(&quiet, is_sweep_due).await {
                tracing::warn!(%error, "journal error; retrying attribution later");
                // They stay quiet, unless a result arrives. The next sweep finds those that do not fit.
                for (request, last_result) in quiet {
                    self.requests.follow(request, last_result);
                }
                next_sweep = Instant::now();
                sleep(JOURNAL_RETRY_DELAY).await;
            }
        }
    }

    async fn process(
        &self,
        quiet: &[(RequestId, Instant)],
        is_sweep_due: bool,
    ) -> Result<(), JournalError> {
        // Usually no outcome is unknown, and callbacks cause no work here.
        if self.journal.state_counts().get(ChangeState::OutcomeUnknown) == 0 {
            return Ok(());
        }
        // Before the sweep: a request that is followed again is not quiet.
        for (request, _) in quiet {
            self.attribute(request).await?;
        }
        if is_sweep_due {
            for request in self.find_unattributed().await? {
                self.requests.follow(request, Instant::now());
            }
        }
        Ok(())
    }

    /// Finds the requests that a change with an unknown outcome can have made.
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
                let requests = self.journal.unattributed_requests(change.change_id, MAX_REQUESTS);
                found.extend(requests.await?);
            }
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Attributes a quiet request if the evidence is sufficient.
    async fn attribute(&self, request_id: &RequestId) -> Result<(), JournalError> {
        let attribute = |listed, last_result| {
            let now = self.clock.now();
            self.journal.attribute(request_id.clone(), listed, last_result, now)
        };
        let Attribution::Candidate { change, last_result, is_whole } =
            attribute(None, None).await?
        else {
            return Ok(());
        };
        // Listeners run before a read can see a commit of this process, so `last_result` is as old as the quiet period.
        let quiet_period = self.attribution_quiet_period;
        if !self.requests.is_still_quiet(request_id, last_result, quiet_period) {
            self.requests.follow(request_id.clone(), Instant::now());
            return Ok(());
        }
        let attribution = match self.look_up_devices(&change, request_id).await {
            RequestDevices::Listed(listed) => attribute(Some(listed), Some(last_result)).await?,
            RequestDevices::Unsupported if is_whole => attribute(None, Some(last_result)).await?,
            RequestDevices::Unsupported | RequestDevices::Unanswered => return Ok(()),
        };
        match attribution {
            Attribution::Attributed(change) => {
                let change_id = change.change_id;
                tracing::info!(%change_id, %request_id, "request attributed to a change");
            }
            // The list may be incomplete, or a result arrived meanwhile.
            Attribution::Candidate { .. } => self.retry_lookup(request_id),
            Attribution::Unproven => {}
        }
        Ok(())
    }

    /// Looks up the devices of a request, if its operation has a request status.
    async fn look_up_devices(&self, change: &Change, request_id: &RequestId) -> RequestDevices {
        if operations::evidence(change.change_type).lookup == LookupMethod::DeviceList {
            return RequestDevices::Unsupported;
        }
        if let Err(next) = self.try_begin_lookup(request_id) {
            self.recheck_at(request_id, next);
            return RequestDevices::Unanswered;
        }
        let devices = self.thingspace.request_status(&change.account, request_id);
        match devices.await {
            Ok(devices)
                if devices.is_empty() && !failpoints::is_active("list-adds-to-callbacks") =>
            {
                tracing::debug!(%request_id, "the request status lists no devices");
                self.retry_lookup(request_id);
                RequestDevices::Unanswered
            }
            Ok(devices) => {
                RequestDevices::Listed(devices.into_iter().map(|device| device.ids).collect())
            }
            // It is not documented whether the status covers plan changes. Until ThingSpace has returned one,
            // a refusal means that it does not; after that, a refusal proves nothing.
            Err(error @ LookupError::Refused { .. }) if !self.thingspace.has_reported_status() => {
                tracing::debug!(%request_id, %error, "ThingSpace does not offer a request status");
                RequestDevices::Unsupported
            }
            Err(error) => {
                tracing::debug!(%request_id, %error, "cannot look up the request status");
                self.retry_lookup(request_id);
                RequestDevices::Unanswered
            }
        }
    }

    /// Records that a lookup begins, or returns the time at which the next one is allowed.
    fn try_begin_lookup(&self, request_id: &RequestId) -> Result<(), Instant> {
        let now = Instant::now();
        let next = now + SWEEP_INTERVAL;
        let mut lookups = self.lookups.lock();
        match lookups.get_mut(request_id) {
            Some(lookup) if lookup.next > now => return Err(lookup.next),
            Some(lookup) => lookup.next = next,
            None => {
                if lookups.len() >= MAX_TRACKED_LOOKUPS {
                    lookups.retain(|_, lookup| lookup.next > now);
                }
                if lookups.len() >= MAX_TRACKED_LOOKUPS {
                    return Err(next);
                }
                let lookup = LookupState { next, failures: 0 };
                lookups.insert(request_id.clone(), lookup);
            }
        }
        Ok(())
    }

    /// Schedules another lookup of a request after one that proved nothing.
    fn retry_lookup(&self, request_id: &RequestId) {
        let mut lookups = self.lookups.lock();
        let failures = lookups.get(request_id).map_or(0, |lookup| lookup.failures);
        let failures = failures.saturating_add(1);
        let next = Instant::now() + LOOKUP_BACKOFF.delay(failures);
        if lookups.len() < MAX_TRACKED_LOOKUPS || lookups.contains_key(request_id) {
            lookups.insert(request_id.clone(), LookupState { next, failures });
        }
        drop(lookups);
        self.recheck_at(request_id, next);
    }

    /// Processes a request again at this time, unless a result arrives before.
    fn recheck_at(&self, request_id: &RequestId, time: Instant) {
        if let Some(last_result) = time.checked_sub(self.attribution_quiet_period) {
            self.requests.follow(request_id.clone(), last_result);
        }
    }
}
