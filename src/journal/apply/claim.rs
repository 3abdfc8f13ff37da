//! Claims: a new change takes its key and its devices.

use std::sync::Arc;

use crate::{
    domain::{
        change::{Attempt, Change, SentDevice},
        device_states::DeviceStates,
        evidence::IdentifyingKinds,
        matching::MatchKey,
        newtypes::{AccountName, ChangeId},
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        BusyDevice, Claim, Dispatch, Intent,
        apply::{
            ApplyError, ChangeDevices, Command, Dirty, Keys, LoadedChange, Row, WorkingSet,
            transition::apply_transition,
        },
        record::{EncodedDevices, IdHash},
    },
    operations,
};

/// Stores a change, or queues a NOT_SENT change again, if the key and the devices are free.
#[derive(Debug)]
pub(in crate::journal) struct ClaimChange {
    pub(in crate::journal) intent: Intent,
    devices: Arc<EncodedDevices>,
}

/// A change that is not finished: no other change of its account may have its devices.
#[derive(Debug, Clone)]
pub(in crate::journal) struct UnfinishedChange {
    pub(in crate::journal) row: Row,
    pub(in crate::journal) change_id: ChangeId,
    pub(in crate::journal) account: AccountName,
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
                let Change { change_id: attempt, create_time: now, .. } = self.intent.change;
                apply_transition(set, row, Transition::Rearm, now)?;
                let owner = set.owner;
                let loaded = set.change(row)?;
                (loaded.attempt, loaded.owner) = (Attempt(attempt), owner);
                let change = loaded.change.clone();
                let encoded = loaded.devices.encoded();
                let encoded = encoded.cloned().ok_or(ApplyError::NotLoaded("all devices"))?;
                let (change_id, account) = (change.change_id, change.account.clone());
                set.unfinished.push(UnfinishedChange { row, change_id, account, devices: encoded });
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
        let account = change.account.clone();
        set.unfinished.push(UnfinishedChange { row, change_id, account, devices });
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        let loaded = LoadedChange {
            row,
            fingerprint,
            attempt: Attempt(change_id),
            owner: set.owner,
            device_states: DeviceStates::default(),
            dispatch_position: 0,
            request: None,
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

/// Returns the first device that another unfinished change of the account has.
///
/// Changes of other accounts do not count. ThingSpace refuses a device that does not belong to the account of the
/// request, and a caller of one account must not learn about the devices of another one, or keep them busy.
fn find_busy_device(set: &WorkingSet, intent: &Intent) -> Result<Option<BusyDevice>, ApplyError> {
    // A transition of this batch may have finished a change that was not when it was loaded.
    let is_unfinished = |unfinished: &&UnfinishedChange| {
        let loaded = set.changes.get(&unfinished.row);
        loaded.is_none_or(|loaded| loaded.change.state.has_device_lock())
    };
    let kinds = operations::evidence(intent.change.change_type).identifying_kinds;
    let mut first: Option<BusyDevice> = None;
    let mut own_keys = None;
    let is_of_account = |other: &&UnfinishedChange| other.account == intent.change.account;
    for other in set.unfinished.iter().filter(is_of_account).filter(is_unfinished) {
        let own_keys = own_keys.get_or_insert_with(|| identifying_keys(&intent.devices, kinds));
        let busy = first_common_device(own_keys, &other.devices)?;
        if let Some(device_index) = busy
            && first.is_none_or(|first| device_index < first.device_index)
        {
            first = Some(BusyDevice { device_index, change_id: other.change_id });
        }
    }
    Ok(first)
}

/// An identifying key of a device of the claim, with its hash.
type OwnKey = (IdHash, u32, MatchKey);

/// Returns the identifying keys of devices with their hash and the index of the device, sorted by hash.
fn identifying_keys(devices: &[SentDevice], kinds: IdentifyingKinds) -> Vec<OwnKey> {
    let keys = (0..).zip(devices).flat_map(|(index, device)| {
        device.ids.iter().map(move |id| (index, MatchKey::from_id(id)))
    });
    let keys = keys.filter(|(_, key)| key.is_identifying(kinds));
    let mut keys: Vec<OwnKey> = keys.map(|(index, key)| (IdHash::of(&key), index, key)).collect();
    keys.sort_unstable();
    keys
}

/// Returns the first device of the claim that another change was sent with. Walks through the smaller of the
/// two indexes.
fn first_common_device(own: &[OwnKey], other: &EncodedDevices) -> Result<Option<u32>, ApplyError> {
    let mut first: Option<u32> = None;
    let mut check = |(hash, device_index, key): &OwnKey| -> Result<(), ApplyError> {
        if first.is_none_or(|first| *device_index < first) && has_identifier(other, key, *hash)? {
            first = Some(*device_index);
        }
        Ok(())
    };
    if own.len() <= other.keys.len() {
        own.iter().try_for_each(check)?;
        return Ok(first);
    }
    for key in &other.keys {
        let from = own.partition_point(|(hash, ..)| *hash < key.hash.first());
        let rest = own.iter().skip(from);
        let rest = rest.take_while(|(hash, ..)| hash.has_same_first(key.hash));
        let same = rest.filter(|(hash, ..)| hash.can_be_same(key.hash));
        same.into_iter().try_for_each(&mut check)?;
    }
    Ok(first)
}

/// True if a device was sent with an identifier.
fn has_identifier(
    devices: &EncodedDevices,
    key: &MatchKey,
    hash: IdHash,
) -> Result<bool, ApplyError> {
    for index in devices.candidates(hash) {
        let ids = devices.device(index)?.ids;
        if ids.iter().any(|id| MatchKey::from_id(id).is_same(key)) {
            return Ok(true);
        }
    }
    Ok(false)
}
