//! Looks up the missing results of changes.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    background::{
        LeaderJob,
        reconcile::sweep::{Schedule, SweepError},
    },
    domain::{
        change::Change,
        clock::Clock,
        evidence::{IdentifyingKinds, LookupMethod},
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{ChangeId, RequestId},
        result::{Callback, DeviceResult, Outcome, ResultSource},
        state::ChangeState,
    },
    journal::{
        ChangeDevice, ChangeFilter, DeviceFilter, DeviceOutcome, Journal, JournalError,
        ReceivedCallback, Stored,
    },
    operations,
    thingspace::{LookupError, ThingSpace},
};

/// Longest interval between sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Changes of one page.
const PAGE_SIZE: usize = 1_000;
/// Maximum number of unmatched results in the schedule.
const MAX_UNMATCHED: usize = 100_000;

/// Looks up missing results, and the devices of unmatched results.
pub struct Reconciler {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) thingspace: Arc<ThingSpace>,
    pub(super) clock: Arc<dyn Clock>,
    reconcile_after: Duration,
    changes: Schedule<ChangeId>,
    /// The rest of a sweep that was throttled, and the time when the changes were listed.
    rest: VecDeque<Change>,
    listed_at: Instant,
    /// The unmatched results, by their numbers.
    pub(super) unmatched: Schedule<u64>,
}

/// The outcome of a device that a lookup proved.
struct Finding {
    ids: Vec<ReportedId>,
    outcome: Outcome,
    status_text: String,
    evidence: &'static str,
}

impl LeaderJob for Reconciler {
    /// Looks up missing results.
    async fn run(&mut self) {
        let mut is_first = true;
        loop {
            let delay = match self.sweep(is_first).await {
                Ok(()) => {
                    is_first = false;
                    SWEEP_INTERVAL.min(self.reconcile_after)
                }
                Err(SweepError::Throttled(wait)) => wait,
                Err(error) => {
                    tracing::warn!(%error, "cannot look up missing results; retrying later");
                    SWEEP_INTERVAL
                }
            };
            sleep(delay).await;
        }
    }
}

impl Reconciler {
    /// Creates a reconciler. It looks up the results of a change when they are missing `reconcile_after`
    /// after ThingSpace accepted the change. If the change was stored before this process started to run the job, it does so
    /// at once and a minute later: callbacks can be missed during a restart.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        reconcile_after: Duration,
    ) -> Self {
        Self {
            journal,
            thingspace,
            clock,
            reconcile_after,
            changes: Schedule::new(reconcile_after, usize::MAX),
            rest: VecDeque::new(),
            listed_at: Instant::now(),
            unmatched: Schedule::new(reconcile_after, MAX_UNMATCHED),
        }
    }

    async fn sweep(&mut self, is_first: bool) -> Result<(), SweepError> {
        // With many changes, a sweep is throttled many times, and most of them are as they were listed.
        if self.rest.is_empty() || self.listed_at.elapsed() >= SWEEP_INTERVAL {
            self.rest = self.list_pending_changes().await?;
            self.listed_at = Instant::now();
            self.changes.retain(&self.rest.iter().map(|change| change.change_id).collect());
        }
        while let Some(change) = self.rest.pop_front() {
            let change_id = change.change_id;
            if is_first {
                self.changes.add_after_restart(change_id);
            }
            let remaining = || {
                let age = change.accept_time.map(|time| self.clock.now().since(time));
                self.reconcile_after.saturating_sub(age.unwrap_or_default())
            };
            if !self.changes.is_due_or_add(change_id, remaining) {
                continue;
            }
            match self.reconcile(&change).await {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(%change_id, count, "stored missing results that were looked up");
                }
                Err(SweepError::Lookup(error)) => {
                    tracing::info!(%change_id, %error, "cannot look up missing results");
                }
                // A change that is throttled stays due.
                Err(error) => {
                    self.rest.push_front(change);
                    return Err(error);
                }
            }
            self.changes.advance(&change_id);
        }
        self.sweep_unmatched().await
    }

    async fn list_pending_changes(&self) -> Result<VecDeque<Change>, JournalError> {
        let mut all = VecDeque::new();
        let mut filter = ChangeFilter {
            states: vec![ChangeState::Accepted, ChangeState::Overdue],
            limit: PAGE_SIZE,
            ..ChangeFilter::default()
        };
        loop {
            let page = self.journal.changes(filter.clone()).await?;
            let is_pending = |change: &Change| change.pending_count() > 0;
            all.extend(page.changes.into_iter().filter(is_pending));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// Looks up the pending devices of a change. Returns the number of results that it stored.
    async fn reconcile(&self, change: &Change) -> Result<usize, SweepError> {
        let filter = DeviceFilter {
            outcomes: vec![DeviceOutcome::Pending],
            device: None,
            from: 0,
            limit: usize::MAX,
        };
        let pending = self.journal.devices(change.change_id, filter).await?;
        let Some(request) = change.request_ids.last().filter(|_| !pending.is_empty()) else {
            return Ok(0);
        };
        let findings = match operations::evidence(change.change_type).lookup {
            LookupMethod::RequestStatus => self.look_up_request_status(change, &pending).await?,
            LookupMethod::DeviceList => self.look_up_device_list(change, &pending).await?,
        };
        let mut count = 0;
        for finding in findings {
            count += usize::from(self.store(request, finding).await?);
        }
        Ok(count)
    }

    /// Returns the final statuses of the pending devices in ThingSpace's status of each request.
    async fn look_up_request_status(
        &self,
        change: &Change,
        pending: &[ChangeDevice],
    ) -> Result<Vec<Finding>, LookupError> {
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let missing = sent_keys(kinds, pending.iter());
        let mut findings = Vec::new();
        for request in &change.request_ids {
            let devices = self.thingspace.request_status(&change.account, request);
            findings.extend(devices.await?.into_iter().filter_map(|device| {
                let is_final = device.outcome != Outcome::Interim;
                let is_missing = matches_any(kinds, &device.ids, &missing);
                (is_final && is_missing).then_some(Finding {
                    ids: device.ids,
                    outcome: device.outcome,
                    status_text: device.status_text,
                    evidence: "ThingSpace's status of the request has this outcome; the callback \
                               has not arrived",
                })
            }));
        }
        Ok(findings)
    }

    /// Returns the pending devices that moved to the plan after the change was sent.
    async fn look_up_device_list(
        &self,
        change: &Change,
        pending: &[ChangeDevice],
    ) -> Result<Vec<Finding>, LookupError> {
        if !change.has_plan_snapshot {
            return Ok(Vec::new());
        }
        let plan = change.service_plan.as_str();
        let listed = self.thingspace.devices_on_plan(&change.account, plan).await?;
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let missing = sent_keys(kinds, pending.iter().filter(|device| !device.was_on_plan));
        let findings = listed.into_iter().flatten().filter_map(|device| {
            matches_any(kinds, &device.ids, &missing).then_some(Finding {
                ids: device.ids,
                outcome: Outcome::Succeeded,
                status_text: String::new(),
                evidence: "the device list shows the device on the new plan, and did not before \
                           the change was sent; the callback has not arrived",
            })
        });
        Ok(findings.collect())
    }

    /// Stores a finding, unless the callback of its device has arrived meanwhile. Returns true if it is stored.
    async fn store(&self, request: &RequestId, finding: Finding) -> Result<bool, JournalError> {
        let result = DeviceResult {
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
        let received = ReceivedCallback {
            callback: Callback::from_lookup(result),
            account: None,
            service: None,
            receive_time: self.clock.now(),
            forwarding: None,
        };
        let stored = self.journal.store_callback(received).await?;
        Ok(matches!(stored, Stored::New(_)))
    }
}

/// Returns the identifying keys that were sent for these devices.
fn sent_keys<'d>(
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
