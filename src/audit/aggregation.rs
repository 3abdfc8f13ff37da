//! Aggregation of records: a client that repeats calls must not fill the disk or rotate older records away.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use crate::{
    audit::record::{AuditEvent, AuditRecord, AuditText},
    domain::newtypes::AccountName,
};

/// Period after which the counts are written.
pub(super) const COUNT_PERIOD: Duration = Duration::from_secs(10);
/// Number of reads, of streams and of refusals of a known caller that have records of their own in a period.
pub(super) const OWN_RECORDS: u32 = 10;
/// Maximum number of counts of a caller for one event in a period. Further calls share one count.
const MAX_COUNTS: usize = 10;
/// Maximum number of counts with an address in a period. Further addresses share a count for each reason.
const MAX_ADDRESSES: usize = 64;
/// Maximum number of callers, times the four events, in a period. A policy has at most 1,000 callers.
const MAX_CALLERS: usize = 4_096;

/// The counts of the current period.
#[derive(Debug, Default)]
pub(super) struct AggregationTable {
    counts: HashMap<Key, u64>,
    callers: HashMap<(AuditText, AuditEvent), CallerRecords>,
    /// Number of counts with an address.
    addresses: usize,
}

/// The fields of a record that counts calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    event: AuditEvent,
    caller: Option<AuditText>,
    peer: Option<IpAddr>,
    method: Option<&'static str>,
    account: Option<AccountName>,
    code: Option<&'static str>,
    reason: Option<&'static str>,
}

/// The records of one caller and event.
#[derive(Debug, Default)]
struct CallerRecords {
    /// Number of records of their own.
    own: u32,
    /// Number of counts.
    counts: usize,
}

impl AggregationTable {
    /// Returns true if the record is written itself. Otherwise, it is counted, as `event`.
    pub(super) fn count(&mut self, event: AuditEvent, record: &AuditRecord) -> bool {
        if let Some(caller) = &record.caller
            && let Some(records) = self.caller(caller, event)
            && records.own < OWN_RECORDS
        {
            records.own += 1;
            return true;
        }
        self.add(event, record);
        false
    }

    /// Counts a record as `event`.
    pub(super) fn add(&mut self, event: AuditEvent, record: &AuditRecord) {
        let key = Key::of(event, record);
        let is_new = !self.counts.contains_key(&key);
        let key = if is_new { self.new_key(key) } else { key };
        *self.counts.entry(key).or_default() += 1;
    }

    /// Returns the key, or one with fewer fields if its caller or the addresses have too many counts.
    fn new_key(&mut self, key: Key) -> Key {
        match &key.caller {
            Some(caller) => match self.caller(caller, key.event) {
                Some(records) if records.counts < MAX_COUNTS => {
                    records.counts += 1;
                    key
                }
                Some(_) => Key { caller: key.caller, ..Key::rest(key.event) },
                None => Key { code: key.code, reason: key.reason, ..Key::rest(key.event) },
            },
            None if key.peer.is_some() && self.addresses < MAX_ADDRESSES => {
                self.addresses += 1;
                key
            }
            None => Key { peer: None, ..key },
        }
    }

    /// Returns the records of a caller, or `None` if there are too many callers.
    fn caller(&mut self, caller: &AuditText, event: AuditEvent) -> Option<&mut CallerRecords> {
        let is_full = self.callers.len() >= MAX_CALLERS;
        match self.callers.entry((caller.clone(), event)) {
            Entry::Vacant(_) if is_full => None,
            entry => Some(entry.or_default()),
        }
    }

    /// Ends the period. Returns a record for each count.
    pub(super) fn take(&mut self) -> Vec<AuditRecord> {
        let counts = std::mem::take(self).counts;
        counts.into_iter().map(|(key, count)| key.record(count)).collect()
    }
}

impl Key {
    /// Refusals are counted by caller, or by address without one, and by reason. Other calls also have their method
    /// and their account.
    fn of(event: AuditEvent, record: &AuditRecord) -> Self {
        let key = Self { code: record.code, reason: record.reason, ..Self::rest(event) };
        match (&record.caller, event) {
            (None, _) => Self { peer: record.peer, ..key },
            (Some(caller), AuditEvent::Refusals) => Self { caller: Some(caller.clone()), ..key },
            (Some(caller), _) => Self {
                caller: Some(caller.clone()),
                method: record.method,
                account: record.account.clone(),
                ..key
            },
        }
    }

    /// A key with the event alone.
    fn rest(event: AuditEvent) -> Self {
        Self {
            event,
            caller: None,
            peer: None,
            method: None,
            account: None,
            code: None,
            reason: None,
        }
    }

    fn record(self, count: u64) -> AuditRecord {
        let Self { event, caller, peer, method, account, code, reason } = self;
        let record = AuditRecord::of_log(event, Some(count));
        AuditRecord { caller, peer, method, account, code, reason, ..record }
    }
}

#[cfg(test)]
mod tests;
