//! Limits the number of changes in flight and of their devices.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    config::LimitsConfig,
    domain::{
        caller_name::CallerName,
        newtypes::{AccountName, IdempotencyKey},
    },
    operations::ChangeRequest,
    shares::{CallerShares, SharePermit, SharedLimit},
};

/// The remaining capacity. A change is in flight from before its claim until its response is recorded, also
/// if the caller disconnects.
pub struct InFlight {
    changes: Arc<SharedLimit>,
    devices: Arc<SharedLimit>,
    keys: Arc<InFlightKeys>,
}

/// The number of calls in flight by key. Their changes may not be in the journal yet.
type InFlightKeys = Mutex<HashMap<AccountKey, usize>>;
type AccountKey = (AccountName, IdempotencyKey);

/// The capacity that one change holds.
pub(super) struct InFlightPermit {
    key: Option<AccountKey>,
    keys: Arc<InFlightKeys>,
    _change: SharePermit,
    _devices: SharePermit,
}

impl InFlight {
    /// Divides the capacity among the callers. `max_devices` is the maximum number of devices of a change.
    pub fn new(limits: &LimitsConfig, max_devices: u32, shares: &CallerShares) -> Self {
        let max_devices = usize::try_from(max_devices).unwrap_or(usize::MAX);
        Self {
            changes: shares.limit(limits.inflight_changes, 1),
            devices: shares.limit(limits.devices, max_devices),
            keys: Arc::default(),
        }
    }

    /// Acquires capacity for a change, unless a limit, or the part of it that the caller may use, is reached.
    pub(super) fn try_acquire(
        &self,
        request: &ChangeRequest,
        caller: &CallerName,
    ) -> Option<InFlightPermit> {
        let _change = self.changes.try_acquire(caller, 1)?;
        let _devices = self.devices.try_acquire(caller, request.devices.len())?;
        let key = account_key(request);
        if let Some(key) = &key {
            *self.keys.lock().entry(key.clone()).or_default() += 1;
        }
        Some(InFlightPermit { key, keys: Arc::clone(&self.keys), _change, _devices })
    }

    /// True if a call with the same key is in flight.
    pub(super) fn is_key_in_flight(&self, request: &ChangeRequest) -> bool {
        account_key(request).is_some_and(|key| self.keys.lock().contains_key(&key))
    }
}

fn account_key(request: &ChangeRequest) -> Option<AccountKey> {
    Some((request.account.clone(), request.key.clone()?))
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        if let Some(key) = self.key.take()
            && let Entry::Occupied(mut count) = self.keys.lock().entry(key)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
