//! Room for what is under way: so many changes, and so many devices in all of them.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{
    change::Demand,
    names::{AccountName, IdempotencyKey},
};

/// How many changes may be under way, and how many devices in all of them together. A change is
/// under way from before its claim until its answer is on record, whether its caller stays or not.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Changes.
    pub changes: usize,
    /// Devices of all of them.
    pub devices: usize,
}

/// The room that is left.
pub(super) struct Room {
    changes: Arc<Semaphore>,
    devices: Arc<Semaphore>,
    entered: Arc<Entered>,
}

/// The keys of changes that have room, so that one that is not in the journal yet is known.
#[derive(Default)]
struct Entered(Mutex<HashMap<Name, usize>>);

type Name = (AccountName, IdempotencyKey);

/// One change's place.
pub(super) struct Place {
    name: Option<Name>,
    entered: Arc<Entered>,
    _change: OwnedSemaphorePermit,
    _devices: OwnedSemaphorePermit,
}

// === impl Room ===

impl Room {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            changes: Arc::new(Semaphore::new(limits.changes)),
            devices: Arc::new(Semaphore::new(limits.devices)),
            entered: Arc::default(),
        }
    }

    /// A place for this change, if there is room for it now.
    pub(super) fn enter(&self, demand: &Demand) -> Option<Place> {
        let devices = u32::try_from(demand.devices.len()).unwrap_or(u32::MAX);
        let change = Arc::clone(&self.changes).try_acquire_owned().ok()?;
        let devices = Arc::clone(&self.devices)
            .try_acquire_many_owned(devices)
            .ok()?;
        let name = name(demand);
        if let Some(name) = &name {
            *self.entered.0.lock().entry(name.clone()).or_default() += 1;
        }
        Some(Place {
            name,
            entered: Arc::clone(&self.entered),
            _change: change,
            _devices: devices,
        })
    }

    /// Whether another call with its key has a place: its change may be on record only later.
    pub(super) fn has(&self, demand: &Demand) -> bool {
        name(demand).is_some_and(|name| self.entered.0.lock().contains_key(&name))
    }
}

fn name(demand: &Demand) -> Option<Name> {
    Some((demand.account.clone(), demand.key.clone()?))
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else {
            return;
        };
        let mut entered = self.entered.0.lock();
        if let Some(count) = entered.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                entered.remove(&name);
            }
        }
    }
}
