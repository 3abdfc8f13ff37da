//! Room for what is under way: so many changes, and so many devices in all of them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    domain::newtypes::{AccountName, IdempotencyKey},
    operations::ChangeRequest,
};

/// How many changes may be under way, and how many devices in all of them together. A change is
/// under way from before its claim until its answer is on record, whether its caller stays or not.
#[derive(Debug, Clone, Copy)]
pub struct InFlightLimits {
    /// Changes.
    pub changes: usize,
    /// Devices of all of them.
    pub devices: usize,
}

/// The room that is left.
pub(super) struct InFlight {
    changes: Arc<Semaphore>,
    devices: Arc<Semaphore>,
    keys: Arc<InFlightKeys>,
}

/// The keys of changes that have room, so that one that is not in the journal yet is known.
#[derive(Default)]
struct InFlightKeys(Mutex<HashMap<AccountKey, usize>>);

type AccountKey = (AccountName, IdempotencyKey);

/// One change's place.
pub(super) struct InFlightPermit {
    key: Option<AccountKey>,
    keys: Arc<InFlightKeys>,
    _change: OwnedSemaphorePermit,
    _devices: OwnedSemaphorePermit,
}

// === impl Room ===

impl InFlight {
    pub(super) fn new(limits: InFlightLimits) -> Self {
        Self {
            changes: Arc::new(Semaphore::new(limits.changes)),
            devices: Arc::new(Semaphore::new(limits.devices)),
            keys: Arc::default(),
        }
    }

    /// A place for this change, if there is room for it now.
    pub(super) fn try_acquire(&self, demand: &ChangeRequest) -> Option<InFlightPermit> {
        let devices = u32::try_from(demand.devices.len()).unwrap_or(u32::MAX);
        let change = Arc::clone(&self.changes).try_acquire_owned().ok()?;
        let devices = Arc::clone(&self.devices)
            .try_acquire_many_owned(devices)
            .ok()?;
        let name = account_key(demand);
        if let Some(name) = &name {
            *self.keys.0.lock().entry(name.clone()).or_default() += 1;
        }
        Some(InFlightPermit {
            key: name,
            keys: Arc::clone(&self.keys),
            _change: change,
            _devices: devices,
        })
    }

    /// Whether another call with its key has a place: its change may be on record only later.
    pub(super) fn is_key_in_flight(&self, demand: &ChangeRequest) -> bool {
        account_key(demand).is_some_and(|name| self.keys.0.lock().contains_key(&name))
    }
}

fn account_key(demand: &ChangeRequest) -> Option<AccountKey> {
    Some((demand.account.clone(), demand.key.clone()?))
}

// === impl Place ===

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        let Some(name) = self.key.take() else {
            return;
        };
        let mut entered = self.keys.0.lock();
        if let Some(count) = entered.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                entered.remove(&name);
            }
        }
    }
}
