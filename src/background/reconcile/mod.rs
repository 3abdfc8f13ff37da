//! Results that never came: ThingSpace is asked, at a bounded rate, and what its answer proves is
//! stored as a result of its own. A look-up that proves nothing changes nothing.
//!
//! eSIM has a status by request, which tells of each device. 5G Business Internet has the device
//! list only: a device that is on the plan now and was not when the change was sent has been
//! changed; one that is not on it may still be, so that a mismatch never makes a failure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::evidence::{IdentifyingKinds, LookupMethod},
    domain::{
        callback::Callback,
        change::Change,
        clock::Clock,
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{ChangeId, RequestId},
        result::{DeviceResult, Outcome, ResultSource},
        state::ChangeState,
    },
    journal::{
        ChangeDevice, ChangeFilter, DeviceFilter, DeviceOutcome, Journal, JournalError,
        ReceivedCallback,
    },
    operations,
    thingspace::{LookupError, ThingSpace},
};

mod unmatched;

/// How often it is looked whether a change is due to be asked about.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// The longest time between two questions about one change.
const MAX_LOOKUP_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// Changes of one page.
const PAGE: usize = 100;
/// Pending devices of one page.
const DEVICES_PAGE_SIZE: usize = 2_000;

/// What asks.
pub struct Reconciler {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    initial_delay: Duration,
    /// When a change is asked about next, and how long to wait after that.
    lookup_schedule: HashMap<ChangeId, (Instant, Duration)>,
    /// The same for results that matched no device, by their numbers.
    unmatched_schedule: HashMap<u64, (Instant, Duration)>,
}

/// Why a change was not asked about to the end.
enum SweepError {
    /// The look-ups' pace, or ThingSpace: not before this long.
    Throttled(Duration),
    Journal(JournalError),
}

/// What was found of a device.
struct Finding {
    ids: Vec<ReportedId>,
    outcome: Outcome,
    status_text: String,
    evidence: &'static str,
}

// === impl Reconciler ===

impl Reconciler {
    /// Asks about a change `after` it was accepted, and at once about those that a start finds: one
    /// process misses callbacks while it restarts.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        after: Duration,
    ) -> Self {
        Self {
            journal,
            thingspace,
            clock,
            initial_delay: after,
            lookup_schedule: HashMap::new(),
            unmatched_schedule: HashMap::new(),
        }
    }

    /// Looks up what is missing, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let sweeps = async {
            let mut first = true;
            loop {
                let wait = match self.sweep(first).await {
                    Ok(()) => {
                        first = false;
                        SWEEP_INTERVAL.min(self.initial_delay)
                    }
                    Err(SweepError::Throttled(wait)) => wait,
                    Err(SweepError::Journal(error)) => {
                        tracing::warn!(%error, "missing results could not be looked up");
                        SWEEP_INTERVAL
                    }
                };
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sweeps => {}
        }
    }

    /// Asks about every change that is due.
    async fn sweep(&mut self, first: bool) -> Result<(), SweepError> {
        let waiting = self.list_pending_changes().await?;
        let known: HashSet<ChangeId> = waiting.iter().map(|change| change.change_id).collect();
        self.lookup_schedule
            .retain(|change_id, _| known.contains(change_id));
        for change in waiting {
            let id = change.change_id;
            let now = Instant::now();
            let (at, wait) = *self.lookup_schedule.entry(id).or_insert_with(|| {
                // Accepted while this ran: later. There at the start: at once.
                let age = change.accept_time.map(|time| self.clock.now().since(time));
                let rest = self.initial_delay.saturating_sub(age.unwrap_or_default());
                let at = if first { now } else { now + rest };
                (at, self.initial_delay)
            });
            if at > now {
                continue;
            }
            match self.reconcile_change(&change).await {
                // The next sweep goes on here: it is still due.
                Err(stopped) => return Err(stopped),
                Ok(()) => {
                    let next = (wait * 2).min(MAX_LOOKUP_INTERVAL.max(self.initial_delay));
                    self.lookup_schedule
                        .insert(id, (Instant::now() + wait, next));
                }
            }
        }
        self.resolve_unmatched_results().await
    }

    async fn list_pending_changes(&self) -> Result<Vec<Change>, SweepError> {
        let mut all = Vec::new();
        let mut filter = ChangeFilter {
            states: vec![ChangeState::Accepted, ChangeState::Overdue],
            limit: PAGE,
            ..ChangeFilter::default()
        };
        loop {
            let page = self.journal.changes(filter.clone()).await?;
            let missing = |change: &Change| change.pending_count() > 0;
            all.extend(page.changes.into_iter().filter(missing));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn reconcile_change(&self, change: &Change) -> Result<(), SweepError> {
        let pending = self.list_pending_devices(change.change_id).await?;
        if pending.is_empty() {
            return Ok(());
        }
        let found = match operations::evidence(change.change_type).lookup {
            LookupMethod::RequestStatus => {
                self.findings_from_request_status(change, &pending).await
            }
            LookupMethod::DeviceList => self.findings_from_device_list(change, &pending).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(LookupError::Throttled(wait)) => return Err(SweepError::Throttled(wait)),
            Err(error) => {
                let change_id = change.change_id;
                tracing::info!(%change_id, %error, "missing results could not be looked up");
                return Ok(());
            }
        };
        let Some(request) = change.request_ids.last() else {
            return Ok(());
        };
        let count = found.len();
        for finding in found {
            self.store(request, finding).await?;
        }
        if count > 0 {
            tracing::info!(change_id = %change.change_id, count, "missing results were looked up");
        }
        Ok(())
    }

    async fn list_pending_devices(
        &self,
        change_id: ChangeId,
    ) -> Result<Vec<ChangeDevice>, SweepError> {
        let mut all: Vec<ChangeDevice> = Vec::new();
        loop {
            let from = all.last().map_or(0, |device| device.index + 1);
            let filter = DeviceFilter {
                outcomes: vec![DeviceOutcome::Pending],
                device: None,
                from,
                limit: DEVICES_PAGE_SIZE,
            };
            let page = self.journal.devices(change_id, filter).await?;
            let is_end = page.len() < DEVICES_PAGE_SIZE;
            all.extend(page);
            if is_end {
                return Ok(all);
            }
        }
    }

    /// What ThingSpace's status of each request says of the devices that are missing.
    async fn findings_from_request_status(
        &self,
        change: &Change,
        pending: &[ChangeDevice],
    ) -> Result<Vec<Finding>, LookupError> {
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let missing = keys(kinds, pending.iter());
        let mut found = Vec::new();
        for request in &change.request_ids {
            let devices = self.thingspace.request_status(&change.account, request);
            found.extend(devices.await?.into_iter().filter_map(|device| {
                let is_final = device.outcome != Outcome::Interim;
                let is_missing = matches_any(kinds, &device.ids, &missing);
                (is_final && is_missing).then_some(Finding {
                    ids: device.ids,
                    outcome: device.outcome,
                    status_text: device.status_text,
                    evidence: "ThingSpace's status of the request says so of this device; its \
                               callback has not come",
                })
            }));
        }
        Ok(found)
    }

    /// Which of the devices that are missing came to the plan since the change was sent.
    async fn findings_from_device_list(
        &self,
        change: &Change,
        pending: &[ChangeDevice],
    ) -> Result<Vec<Finding>, LookupError> {
        if !change.has_plan_snapshot {
            return Ok(Vec::new());
        }
        let plan = change.service_plan.as_str();
        let listed = self.thingspace.devices_on_plan(&change.account, plan);
        let Some(listed) = listed.await? else {
            return Ok(Vec::new());
        };
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let moved = pending.iter().filter(|device| !device.was_on_plan);
        let missing = keys(kinds, moved);
        let found = listed.into_iter().filter_map(|device| {
            matches_any(kinds, &device.ids, &missing).then_some(Finding {
                ids: device.ids,
                outcome: Outcome::Succeeded,
                status_text: String::new(),
                evidence: "the device list has it on the plan now, and had not when the change was \
                           sent; its callback has not come",
            })
        });
        Ok(found.collect())
    }

    async fn store(&self, request: &RequestId, finding: Finding) -> Result<(), SweepError> {
        let report = DeviceResult {
            request_id: request.clone(),
            device_ids: finding.ids,
            outcome: finding.outcome,
            status_text: finding.status_text,
            fault: None,
            esim_profile: None,
            service_plan_change: None,
            operation_text: String::new(),
            source: ResultSource::Reconciled,
            evidence: finding.evidence.to_owned(),
            callback_count: 0,
            max_callback_threshold: 0,
        };
        let arrival = ReceivedCallback {
            callback: Callback::from_lookup(report),
            account: None,
            service: None,
            receive_time: self.clock.now(),
            forwarding: None,
        };
        self.journal.store_callback(arrival).await?;
        Ok(())
    }
}

impl From<JournalError> for SweepError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

/// What tells the devices of a change apart.
fn keys<'d>(
    kinds: IdentifyingKinds,
    devices: impl Iterator<Item = &'d ChangeDevice>,
) -> HashSet<MatchKey> {
    devices
        .flat_map(|device| &device.sent.ids)
        .map(MatchKey::from_id)
        .filter(|key| key.is_identifying(kinds))
        .collect()
}

fn matches_any(kinds: IdentifyingKinds, ids: &[ReportedId], keys: &HashSet<MatchKey>) -> bool {
    ids.iter()
        .filter_map(MatchKey::from_reported)
        .any(|key| key.is_identifying(kinds) && keys.contains(&key))
}
