//! Limits the number of changes in flight and of their devices.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::LimitsConfig,
    domain::newtypes::{AccountName, IdempotencyKey},
    operations::ChangeRequest,
};

/// The remaining capacity. A change is in flight from before its claim until its response is recorded, also
/// if the caller disconnects.
pub(super) struct InFlight {
    changes: Arc<Semaphore>,
    devices: Arc<Semaphore>,
    keys: Arc<InFlightKeys>,
}

/// The number of calls in flight by key. Their changes may not be in the journal yet.
type InFlightKeys = Mutex<HashMap<AccountKey, usize>>;
type AccountKey = (AccountName, IdempotencyKey);

/// The capacity that one change holds.
pub(super) struct InFlightPermit {
    key: Option<AccountKey>,
    keys: Arc<InFlightKeys>,
    _change: OwnedSemaphorePermit,
    _devices: OwnedSemaphorePermit,
}

impl InFlight {
    pub(super) fn new(limits: &LimitsConfig) -> Self {
        Self {
            changes: Arc::new(Semaphore::new(limits.inflight_changes)),
            devices: Arc::new(Semaphore::new(limits.devices)),
            keys: Arc::default(),
        }
    }

    /// Acquires capacity for a change, unless a limit is reached.
    pub(super) fn try_acquire(&self, request: &ChangeRequest) -> Option<InFlightPermit> {
        let devices = u32::try_from(request.devices.len()).unwrap_or(u32::MAX);
        let _change = Arc::clone(&self.changes).try_acquire_owned().ok()?;
        let _devices = Arc::clone(&self.devices).try_acquire_many_owned(devices).ok()?;
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
