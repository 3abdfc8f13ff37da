//! Aggregation of refusals: a flood of refused calls must not fill the disk or rotate older records away.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use crate::audit::record::{AuditEvent, AuditRecord, AuditText};

/// Period after which aggregated refusals are written.
pub(super) const REFUSAL_PERIOD: Duration = Duration::from_secs(10);
/// Number of refusals of a known caller for one reason that each have a record of their own in a period.
const RECORDS_PER_CALLER: u64 = 10;
/// Maximum number of addresses and reasons in a period. Further addresses share a record for each reason.
const MAX_ADDRESSES: usize = 64;
/// Maximum number of callers and reasons in a period. A policy has at most 1,000 callers.
const MAX_CALLERS: usize = 4_096;

/// The refusals of the current period.
#[derive(Debug, Default)]
pub(super) struct RefusalTable {
    callers: HashMap<(AuditText, Cause), Refused>,
    addresses: HashMap<(Option<IpAddr>, Cause), Refused>,
}

/// The status and the reason of a refusal.
type Cause = (Option<&'static str>, Option<&'static str>);

/// The refusals with one key.
#[derive(Debug, Default)]
struct Refused {
    /// Refusals with a record of their own.
    single: u64,
    /// Refusals without one.
    aggregated: u64,
}

impl RefusalTable {
    /// Counts a refusal. Returns true if it gets a record of its own.
    pub(super) fn count(&mut self, record: &AuditRecord) -> bool {
        let cause = (record.code, record.reason);
        let Some(caller) = &record.caller else {
            self.count_address(record.peer, cause);
            return false;
        };
        let is_full = self.callers.len() >= MAX_CALLERS;
        match self.callers.entry((caller.clone(), cause)) {
            Entry::Vacant(_) if is_full => {
                self.count_address(None, cause);
                false
            }
            entry => {
                let refused = entry.or_default();
                let is_single = refused.single < RECORDS_PER_CALLER;
                *if is_single { &mut refused.single } else { &mut refused.aggregated } += 1;
                is_single
            }
        }
    }

    fn count_address(&mut self, peer: Option<IpAddr>, cause: Cause) {
        let is_full = self.addresses.len() >= MAX_ADDRESSES;
        let key = (peer, cause);
        let key = if is_full && !self.addresses.contains_key(&key) { (None, cause) } else { key };
        self.addresses.entry(key).or_default().aggregated += 1;
    }

    /// Ends the period. Returns a record for each key with refusals that have none.
    pub(super) fn take(&mut self) -> Vec<AuditRecord> {
        let callers = self.callers.drain().map(|((caller, cause), refused)| {
            let record = AuditRecord { caller: Some(caller), ..refused.record(cause) };
            (refused.aggregated, record)
        });
        let addresses = self.addresses.drain().map(|((peer, cause), refused)| {
            (refused.aggregated, AuditRecord { peer, ..refused.record(cause) })
        });
        let records = callers.chain(addresses);
        records.filter(|(aggregated, _)| *aggregated > 0).map(|(_, record)| record).collect()
    }
}

impl Refused {
    fn record(&self, (code, reason): Cause) -> AuditRecord {
        let record = AuditRecord::of_log(AuditEvent::Refusals, Some(self.aggregated));
        AuditRecord { code, reason, ..record }
    }
}

#[cfg(test)]
mod tests;
