//! The ledger: what was executed. It holds no names and no addresses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::changes::{Asked, ChangeKind};
use super::errors::Refusal;
use super::identifiers::Device;

/// Changes that are kept; older ones are only counted.
const MAX_CHANGES: usize = 10_000;
/// Devices whose identifiers are kept, over all changes; the oldest changes lose
/// theirs first.
const MAX_DEVICES: usize = 250_000;
/// Devices whose callbacks may be outstanding.
const MAX_PENDING: usize = 500_000;

/// What was executed since the sandbox started.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accepted: u64,
    log_ins: u64,
    token_requests: u64,
    entries: VecDeque<Entry>,
    listed_devices: usize,
    pending_devices: usize,
    refused: BTreeMap<&'static str, u64>,
}

/// One executed change.
#[derive(Debug)]
pub(super) struct Change {
    /// Its number in the order of acceptance, from 0.
    pub(super) ordinal: u64,
    pub(super) request_id: String,
    pub(super) account: String,
    pub(super) kind: ChangeKind,
    pub(super) service_plan: String,
    pub(super) received_at_ms: u64,
    pub(super) callbacks: Tally,
}

/// Counts about the callbacks of one change.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    /// POSTs, duplicates and resends included.
    #[serde(serialize_with = "count")]
    pub(super) sent: AtomicU64,
    /// Devices whose callback was answered with 2xx.
    #[serde(serialize_with = "count")]
    pub(super) acknowledged: AtomicU64,
    /// POSTs that were sent a second time on purpose.
    #[serde(serialize_with = "count")]
    pub(super) duplicates: AtomicU64,
    /// Devices whose callback tells a fault.
    #[serde(serialize_with = "count")]
    pub(super) failed_devices: AtomicU64,
    /// Devices whose callback was never acknowledged.
    #[serde(serialize_with = "count")]
    pub(super) gave_up: AtomicU64,
    /// Devices whose callback had nowhere to go.
    #[serde(serialize_with = "count")]
    pub(super) no_listener: AtomicU64,
}

/// Adds one to a count.
pub(super) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn count<S: Serializer>(count: &AtomicU64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(count.load(Ordering::Relaxed))
}

#[derive(Clone, Debug)]
struct Entry {
    change: Arc<Change>,
    count: usize,
    /// None once they had to give way to newer ones.
    devices: Option<Arc<[Device]>>,
}

impl Ledger {
    /// Writes a change down, which is its execution.
    pub(super) fn accept(
        &mut self,
        asked: Asked,
        account: String,
        received_at_ms: u64,
    ) -> Result<(Arc<Change>, Arc<[Device]>), Refusal> {
        let count = asked.devices.len();
        if self.pending_devices + count > MAX_PENDING {
            return Err(Refusal::throttled());
        }
        let change = Arc::new(Change {
            ordinal: self.accepted,
            // Not the seed's: ThingSpace never gives one twice, and a gateway may keep its
            // journal longer than this runs.
            request_id: Uuid::new_v4().to_string(),
            account,
            kind: asked.kind,
            service_plan: asked.service_plan,
            received_at_ms,
            callbacks: Tally::default(),
        });
        let devices: Arc<[Device]> = asked.devices.into();
        self.accepted += 1;
        self.pending_devices += count;
        self.listed_devices += count;
        self.entries.push_back(Entry {
            change: Arc::clone(&change),
            count,
            devices: Some(Arc::clone(&devices)),
        });
        self.make_room();
        Ok((change, devices))
    }

    /// A change's callbacks are done with.
    pub(super) fn settled(&mut self, devices: usize) {
        self.pending_devices = self.pending_devices.saturating_sub(devices);
    }

    pub(super) fn count_log_in(&mut self) {
        self.log_ins += 1;
    }

    pub(super) fn count_token_request(&mut self) {
        self.token_requests += 1;
    }

    pub(super) fn count_refused(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// What the ledger says now: cheap, so that it can be written out later.
    pub(super) fn page(&self, identifiers: bool) -> Page {
        let entries = self.entries.iter().cloned();
        let line = |entry: Entry| Line {
            devices: entry.count,
            device_identifiers: entry.devices.filter(|_| identifiers).map(Identifiers),
            change: entry.change,
        };
        Page {
            log_ins: self.log_ins,
            token_requests: self.token_requests,
            changes_accepted: self.accepted,
            devices_pending: self.pending_devices,
            refused: self.refused.clone(),
            changes: entries.map(line).collect(),
        }
    }

    fn make_room(&mut self) {
        if self.entries.len() > MAX_CHANGES
            && let Some(oldest) = self.entries.pop_front()
            && oldest.devices.is_some()
        {
            self.listed_devices -= oldest.count;
        }
        for entry in &mut self.entries {
            if self.listed_devices <= MAX_DEVICES {
                break;
            }
            if entry.devices.take().is_some() {
                self.listed_devices -= entry.count;
            }
        }
    }
}

/// The ledger as it is answered.
#[derive(Serialize)]
pub(super) struct Page {
    log_ins: u64,
    token_requests: u64,
    changes_accepted: u64,
    devices_pending: usize,
    refused: BTreeMap<&'static str, u64>,
    changes: Vec<Line>,
}

struct Line {
    change: Arc<Change>,
    devices: usize,
    device_identifiers: Option<Identifiers>,
}

struct Identifiers(Arc<[Device]>);

impl Serialize for Identifiers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'l> {
            request_id: &'l str,
            account: &'l str,
            kind: &'static str,
            service_plan: &'l str,
            devices: usize,
            received_at_ms: u64,
            callbacks: &'l Tally,
            #[serde(skip_serializing_if = "Option::is_none")]
            device_identifiers: Option<&'l Identifiers>,
        }
        Written {
            request_id: &self.change.request_id,
            account: &self.change.account,
            kind: self.change.kind.name(),
            service_plan: &self.change.service_plan,
            devices: self.devices,
            received_at_ms: self.change.received_at_ms,
            callbacks: &self.change.callbacks,
            device_identifiers: self.device_identifiers.as_ref(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::identifiers::DeviceId;

    fn asked(devices: usize) -> Asked {
        let one = DeviceId {
            id: "89148000000800139708".into(),
            kind: "iccid".into(),
        };
        Asked {
            kind: ChangeKind::FiveGBi,
            account: None,
            service_plan: "plan".into(),
            devices: vec![Box::new([one]); devices],
        }
    }

    #[test]
    fn the_oldest_changes_lose_their_identifiers_first_and_stay_counted() {
        let mut ledger = Ledger::default();
        for _ in 0..30 {
            ledger
                .accept(asked(10_000), "0000123456-00001".into(), 0)
                .unwrap();
            ledger.settled(10_000);
        }
        let page = ledger.page(true);
        let listed: Vec<bool> = page
            .changes
            .iter()
            .map(|line| line.device_identifiers.is_some())
            .collect();
        assert_eq!(listed, [vec![false; 5], vec![true; 25]].concat());
        assert!(page.changes.iter().all(|line| line.devices == 10_000));
    }
}
