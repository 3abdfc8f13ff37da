//! The keys of the rows that a batch may touch.

use std::collections::{HashMap, HashSet};

use crate::{
    domain::{
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{AccountName, ChangeId, IdempotencyKey, RequestId},
    },
    journal::record::Digest,
};

/// The keys of the rows that a batch may touch.
#[derive(Debug, Default)]
pub(in crate::journal) struct Keys {
    /// Changes by their id.
    pub(in crate::journal) changes: HashSet<ChangeId>,
    /// Changes by their idempotency key. Claims with a key that was NOT_SENT need all devices of the change.
    pub(in crate::journal) idempotency_keys: HashSet<(AccountName, IdempotencyKey)>,
    /// Requests.
    pub(in crate::journal) requests: HashMap<RequestId, RequestKeys>,
    /// Accounts.
    pub(in crate::journal) accounts: HashSet<AccountName>,
    /// True if a claim needs the devices of all changes that are not finished.
    pub(in crate::journal) unfinished_changes: bool,
    /// True if a command needs the processes that hold their lease.
    pub(in crate::journal) live_owners: bool,
    /// Unmatched results of changes, with the identifiers of the device that they are resolved to.
    pub(in crate::journal) unmatched: Vec<(ChangeId, u64, LookupKeys)>,
}

/// The keys below one request.
#[derive(Debug, Default)]
pub(in crate::journal) struct RequestKeys {
    /// The digests of its new results.
    pub(in crate::journal) digests: Vec<Digest>,
    /// The identifiers in its new results.
    pub(in crate::journal) lookups: LookupKeys,
    /// The changes that the batch may link it to. They need its stored results too.
    pub(in crate::journal) links: Vec<ChangeId>,
}

/// Identifiers to look up among the devices of a change.
#[derive(Debug, Default)]
pub(in crate::journal) struct LookupKeys(pub(in crate::journal) Vec<MatchKey>);

impl Keys {
    /// Returns the keys below a request.
    pub(in crate::journal) fn request(&mut self, request_id: &RequestId) -> &mut RequestKeys {
        self.requests.entry(request_id.clone()).or_default()
    }
}

impl LookupKeys {
    /// Adds the identifiers of one result.
    pub(in crate::journal) fn add(&mut self, ids: &[ReportedId]) {
        self.0.extend(ids.iter().filter_map(MatchKey::from_reported));
    }
}
