//! Claims: a new change takes its key and its devices.

use std::sync::Arc;

use crate::{
    domain::{
        change::Change,
        device_states::DeviceStates,
        matching::MatchKey,
        newtypes::ChangeId,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        BusyDevice, Claim, Dispatch, Intent,
        apply::{
            ApplyError, ChangeDevices, Command, Dirty, Keys, LoadedChange, Row, WorkingSet,
            transition::apply_transition,
        },
        record::{EncodedDevices, key_hash},
    },
    operations,
};

/// Stores a change, or queues a NOT_SENT change again, if the key and the devices are free.
#[derive(Debug)]
pub(in crate::journal) struct ClaimChange {
    pub(in crate::journal) intent: Intent,
    devices: Arc<EncodedDevices>,
}

/// A change that is not finished: no other change may have its devices.
#[derive(Debug, Clone)]
pub(in crate::journal) struct UnfinishedChange {
    pub(in crate::journal) row: Row,
    pub(in crate::journal) change_id: ChangeId,
    pub(in crate::journal) devices: Arc<EncodedDevices>,
}

impl ClaimChange {
    /// Encodes the devices, on the caller's thread.
    pub(in crate::journal) fn new(intent: Intent) -> Self {
        Self { devices: Arc::new(EncodedDevices::encode(&intent.devices)), intent }
    }
}

impl Command for ClaimChange {
    type Output = Claim;

    fn collect(&self, keys: &mut Keys) {
        keys.unfinished_changes = true;
        let change = &self.intent.change;
        keys.accounts.insert(change.account.clone());
        if let Some(key) = &change.key {
            keys.idempotency_keys.insert((change.account.clone(), key.clone()));
        }
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Claim, ApplyError> {
        match check_claim(set, &self.intent)? {
            Claim::Created(_) => Ok(Claim::Created(self.insert(set)?)),
            Claim::Rearmed { change, devices } => {
                let row = set.change_row(change.change_id)?;
                apply_transition(set, row, Transition::Rearm, self.intent.change.create_time)?;
                let loaded = set.change(row)?;
                let change = loaded.change.clone();
                let encoded = loaded.devices.encoded();
                let encoded = encoded.cloned().ok_or(ApplyError::NotLoaded("all devices"))?;
                let change_id = change.change_id;
                set.unfinished.push(UnfinishedChange { row, change_id, devices: encoded });
                Ok(Claim::Rearmed { change, devices })
            }
            Claim::KeyInUse { .. } if failpoints::is_active("no-key-check") => {
                let mut without_key = self;
                without_key.intent.change.key = None;
                without_key.apply(set)
            }
            rejected @ (Claim::KeyInUse { .. } | Claim::Busy(_)) => Ok(rejected),
        }
    }
}

impl ClaimChange {
    fn insert(self, set: &mut WorkingSet) -> Result<Change, ApplyError> {
        let Intent { change, fingerprint, dispatch, .. } = self.intent;
        let now = change.create_time;
        let row = set.last_position + 1;
        let change_id = change.change_id;
        set.change_by_id.insert(change_id, row);
        if let Some(key) = &change.key {
            set.change_by_key.insert((change.account.clone(), key.clone()), row);
        }
        set.counts.states.add(change.state, 1);
        let devices = Arc::clone(&self.devices);
        set.unfinished.push(UnfinishedChange { row, change_id, devices });
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let loaded = LoadedChange {
            row,
            fingerprint,
            device_states: DeviceStates::default(),
            dispatch_position: 0,
            devices: ChangeDevices::all(kinds, change.device_count, self.devices),
            on_plan: None,
            dirty: Dirty::New,
            has_new_state: true,
            change,
        };
        set.changes.insert(row, loaded);
        set.append_state(row)?;
        if let Some(Dispatch { trace }) = dispatch {
            let transition = Transition::Dispatch { trace, already_on_plan: None };
            apply_transition(set, row, transition, now)?;
        }
        Ok(set.change(row)?.change.clone())
    }
}

/// Returns the result that a claim would have. Changes nothing.
pub(in crate::journal) fn check_claim(
    set: &mut WorkingSet,
    intent: &Intent,
) -> Result<Claim, ApplyError> {
    let key = intent.change.key.as_ref();
    let key = key.map(|key| (intent.change.account.clone(), key.clone()));
    let existing = key.and_then(|key| set.change_by_key.get(&key).copied());
    if let Some(row) = existing {
        let loaded = set.change(row)?;
        let has_same_content = loaded.fingerprint == intent.fingerprint;
        if !has_same_content || loaded.change.state != ChangeState::NotSent {
            let change = loaded.change.clone();
            return Ok(Claim::KeyInUse { change, has_same_content });
        }
    }
    if let Some(busy) = find_busy_device(set, intent)? {
        return Ok(Claim::Busy(busy));
    }
    let Some(row) = existing else {
        return Ok(Claim::Created(intent.change.clone()));
    };
    let loaded = set.change(row)?;
    let devices = loaded.devices.encoded().ok_or(ApplyError::NotLoaded("all devices"))?;
    Ok(Claim::Rearmed { change: loaded.change.clone(), devices: devices.decode()? })
}

/// Returns the first device that another unfinished change has.
fn find_busy_device(set: &WorkingSet, intent: &Intent) -> Result<Option<BusyDevice>, ApplyError> {
    // A transition of this batch may have finished a change that was not when it was loaded.
    let is_unfinished = |unfinished: &&UnfinishedChange| {
        let loaded = set.changes.get(&unfinished.row);
        loaded.is_none_or(|loaded| loaded.change.state.has_device_lock())
    };
    let unfinished: Vec<_> = set.unfinished.iter().filter(is_unfinished).collect();
    if unfinished.is_empty() {
        return Ok(None);
    }
    let kinds = operations::evidence(intent.change.change_type).identifying_kinds;
    for (device_index, device) in (0..).zip(&*intent.devices) {
        let keys = device.ids.iter().map(MatchKey::from_id);
        for key in keys.filter(|key| key.is_identifying(kinds)) {
            let hash = key_hash(&key);
            for other in &unfinished {
                if has_identifier(&other.devices, &key, hash)? {
                    let change_id = other.change_id;
                    return Ok(Some(BusyDevice { device_index, change_id }));
                }
            }
        }
    }
    Ok(None)
}

/// True if a device was sent with an identifier. The hash alone equates ICCIDs that differ only in a
/// trailing check digit.
fn has_identifier(devices: &EncodedDevices, key: &MatchKey, hash: u32) -> Result<bool, ApplyError> {
    for index in devices.with_hash(hash) {
        let ids = devices.device(index)?.ids;
        if ids.iter().any(|id| MatchKey::from_id(id).is_same(key)) {
            return Ok(true);
        }
    }
    Ok(false)
}
