//! Resolves an unmatched result to a device.

use crate::{
    domain::{
        clock::Timestamp, device_states::DeviceRef, identifier::ReportedId,
        matching::can_be_same_device, newtypes::ChangeId, result::Match,
    },
    journal::apply::{
        ApplyError, Command, Dirty, Keys, LookupKeys, WorkingSet, link::finish_if_complete,
    },
};

/// Resolves an unmatched result to the one device of its change that has these identifiers, which all
/// belong to one device. Returns false, and changes nothing, if that is not exactly one device or another
/// result contradicts it.
#[derive(Debug)]
pub(in crate::journal) struct ResolveUnmatched {
    pub(in crate::journal) change_id: ChangeId,
    pub(in crate::journal) first_result: u64,
    /// The identifiers in the first result.
    pub(in crate::journal) reported: Vec<ReportedId>,
    pub(in crate::journal) listed: Vec<ReportedId>,
    pub(in crate::journal) now: Timestamp,
}

impl Command for ResolveUnmatched {
    type Output = bool;

    fn collect(&self, keys: &mut Keys) {
        keys.changes.insert(self.change_id);
        let mut lookups = LookupKeys::default();
        lookups.add(&self.listed);
        keys.unmatched.push((self.change_id, self.first_result, lookups));
    }

    fn apply(self, set: &mut WorkingSet) -> Result<bool, ApplyError> {
        let row = set.change_row(self.change_id)?;
        let loaded = set.change(row)?;
        let first_result = i64::try_from(self.first_result).unwrap_or(i64::MAX);
        let unmatched = loaded.devices.states.get(&DeviceRef::UnmatchedResult(first_result));
        if unmatched.is_none_or(|state| state.dirty == Dirty::Deleted) {
            // A later callback has resolved it.
            return Ok(false);
        }
        let (Some(index), Match::Exact) = loaded.devices.find(&self.listed)? else {
            return Ok(false);
        };
        if !can_be_same_device(&self.reported, &self.listed) {
            return Ok(false);
        }
        let keys = loaded.devices.identifying_keys(&self.listed);
        if !loaded.device_states.try_merge(&mut loaded.devices, &keys, index)? {
            return Ok(false);
        }
        loaded.update_counts(self.now);
        // An event of its own, so that past events do not change.
        set.append_state(row)?;
        finish_if_complete(set, row, self.now)?;
        Ok(true)
    }
}
