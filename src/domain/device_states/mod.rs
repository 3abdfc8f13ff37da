//! The states of a change's devices, and the number of devices by result.
//!
//! Results can name identifiers that were not sent, and can arrive in any order and repeatedly. The counts
//! depend only on the set of results. Each result belongs to a *group*: the device that it matches, or else
//! all unmatched results that share an identifier with it. An unmatched group counts as one more device only
//! if it is provably none of the others. Ambiguous results belong to no group.
//!
//! Two groups are provably different if both have a value of one kind: equal values would have merged them.
//! So the counts depend only on the kinds of identifiers that are known of each group. A small histogram of
//! the groups by kinds and outcome is stored with the change.

use serde::{Deserialize, Serialize};

use crate::domain::{
    identifier::IdentifierKind,
    matching::MatchKey,
    result::{Outcome, ResultPrecedence},
};

/// The number of devices of a change by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// Devices with a final success.
    #[serde(rename = "s")]
    pub succeeded: u32,
    /// Devices with a final failure.
    #[serde(rename = "f")]
    pub failed: u32,
    /// The part of both that are unmatched groups.
    #[serde(rename = "u")]
    pub unmatched: u32,
}

/// A group of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceRef {
    /// The results of a device, by its index in the request.
    Device(u32),
    /// Unmatched results, by the number of the first one.
    UnmatchedResult(i64),
}

/// The state of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// The kinds of known identifiers, as [`MatchKey::kind_bit`]s. They include the identifiers that were
    /// sent.
    pub kind_mask: u16,
    /// The highest precedence of its final results.
    pub precedence: Option<ResultPrecedence>,
    /// The number of the deciding result: the first one with that precedence.
    pub decided_by: Option<i64>,
}

/// Stores the groups of one change.
pub trait DeviceStateStore {
    /// An error of the store.
    type Error;

    /// Returns the state of a group; the default if it is not stored.
    fn state(&mut self, group: DeviceRef) -> Result<DeviceState, Self::Error>;
    /// Stores the state of a group.
    fn put_state(&mut self, group: DeviceRef, state: DeviceState) -> Result<(), Self::Error>;
    /// Returns the group with an identifier that a result reported.
    fn owner(&mut self, key: &MatchKey) -> Result<Option<DeviceRef>, Self::Error>;
    /// Records that a group has an identifier.
    fn put_owner(&mut self, key: &MatchKey, group: DeviceRef) -> Result<(), Self::Error>;
    /// Moves the identifiers of an unmatched group to another group, and removes the unmatched group.
    fn merge(&mut self, unmatched: i64, into: DeviceRef) -> Result<(), Self::Error>;
}

/// A histogram of the groups with a final result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Bucket>")]
pub struct DeviceStates(Vec<Bucket>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    #[serde(rename = "x")]
    is_unmatched: bool,
    #[serde(rename = "k")]
    kind_mask: u16,
    #[serde(rename = "s")]
    succeeded: u32,
    #[serde(rename = "f")]
    failed: u32,
}

/// Maximum number of unmatched buckets of which every combination is tried. One or two are usual.
const MAX_UNMATCHED_BUCKETS: usize = 10;

impl DeviceState {
    /// Applies a result. It has no effect unless it is final.
    fn apply_result(&mut self, precedence: Option<ResultPrecedence>, number: Option<i64>) {
        if precedence > self.precedence {
            self.precedence = precedence;
            self.decided_by = number;
        } else if precedence.is_some() && precedence == self.precedence {
            self.decided_by = self.decided_by.min(number);
        }
    }
}

impl TryFrom<Vec<Bucket>> for DeviceStates {
    type Error = &'static str;

    /// Bounds the number of buckets and their sums: an imported file can have any.
    fn try_from(buckets: Vec<Bucket>) -> Result<Self, Self::Error> {
        let is_ordered = buckets.is_sorted_by(|one, next| one.key() < next.key());
        let is_known = |bucket: &Bucket| bucket.kind_mask >> IdentifierKind::ALL.len() == 0;
        let sizes = buckets.iter().map(|bucket| bucket.succeeded.checked_add(bucket.failed));
        let sum = sizes.into_iter().try_fold(0_u32, |sum, size| sum.checked_add(size?));
        match is_ordered && buckets.iter().all(is_known) && sum.is_some() {
            true => Ok(Self(buckets)),
            false => Err("the counts of groups have no order, unknown kinds or too large numbers"),
        }
    }
}

impl DeviceStates {
    /// Adds a result with its identifying keys, the device that it matches, and its precedence if it is
    /// final. `number` is unique among the results of the change and grows with each result.
    pub fn record<B: DeviceStateStore>(
        &mut self,
        store: &mut B,
        keys: &[MatchKey],
        matched: Option<u32>,
        precedence: Option<ResultPrecedence>,
        number: i64,
    ) -> Result<(), B::Error> {
        let mut groups: Vec<DeviceRef> = matched.map(DeviceRef::Device).into_iter().collect();
        for key in keys {
            groups.extend(store.owner(key)?);
        }
        groups.sort_unstable();
        groups.dedup();
        // Two devices that share an identifier are not merged.
        let target = matched
            .map(DeviceRef::Device)
            .or(groups.first().copied())
            .unwrap_or(DeviceRef::UnmatchedResult(number));

        let mut state = store.state(target)?;
        self.count(target, state, -1);
        for other in groups {
            if let DeviceRef::UnmatchedResult(unmatched) = other
                && other != target
            {
                let known = store.state(other)?;
                self.count(other, known, -1);
                state.kind_mask |= known.kind_mask;
                state.apply_result(known.precedence, known.decided_by);
                store.merge(unmatched, target)?;
            }
        }
        for key in keys {
            state.kind_mask |= key.kind_bit();
            if store.owner(key)?.is_none() {
                store.put_owner(key, target)?;
            }
        }
        state.apply_result(precedence, Some(number));
        self.count(target, state, 1);
        store.put_state(target, state)
    }

    /// True if a result without a sent identifier names two devices: it has two values of one kind, or keys
    /// that results of two devices had before.
    pub fn is_ambiguous<B: DeviceStateStore>(
        store: &mut B,
        keys: &[MatchKey],
    ) -> Result<bool, B::Error> {
        let mut first = None;
        for (index, key) in keys.iter().enumerate() {
            let is_another =
                |other: &MatchKey| other.kind_bit() == key.kind_bit() && !other.is_same(key);
            if keys.iter().skip(index + 1).any(is_another) {
                return Ok(true);
            }
            let Some(DeviceRef::Device(device)) = store.owner(key)? else {
                continue;
            };
            if *first.get_or_insert(device) != device {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records that all these keys belong to one device, and merges their groups. Returns `false` and changes
    /// nothing if the present groups contradict it: a key belongs to another device, or two of the groups
    /// are provably different.
    pub fn try_merge<B: DeviceStateStore>(
        &mut self,
        store: &mut B,
        keys: &[MatchKey],
        device: u32,
    ) -> Result<bool, B::Error> {
        let target = DeviceRef::Device(device);
        let mut groups = vec![target];
        for key in keys {
            groups.extend(store.owner(key)?);
        }
        groups.sort_unstable();
        groups.dedup();
        let mut kinds = 0;
        for group in &groups {
            let known = store.state(*group)?.kind_mask;
            let is_another = matches!(group, DeviceRef::Device(_)) && *group != target;
            if is_another || kinds & known != 0 {
                return Ok(false);
            }
            kinds |= known;
        }
        // The number is not used, because the result has a device.
        self.record(store, keys, Some(device), None, i64::MAX)?;
        Ok(true)
    }

    /// Returns the counts for a change with this number of devices.
    pub fn counts(&self, device_count: u32) -> DeviceCounts {
        let best = self.largest_distinct_set();
        let sum = |buckets: &[Bucket], is_unmatched: bool| {
            let buckets = buckets.iter().filter(|bucket| bucket.is_unmatched == is_unmatched);
            buckets.fold((0, 0), |(succeeded, failed), bucket| {
                (succeeded + bucket.succeeded, failed + bucket.failed)
            })
        };
        // A matched device always counts, even if the largest distinct set does not contain it.
        let (succeeded, failed) = sum(&self.0, false);
        let (unmatched_succeeded, unmatched_failed) = sum(&best, true);
        let size: u32 = best.iter().map(Bucket::size).sum();
        // Results beyond the number of devices belong to other requests. Failures count first.
        let remaining = size.min(device_count).saturating_sub(succeeded + failed);
        let unmatched_failed = unmatched_failed.min(remaining);
        let unmatched_succeeded = unmatched_succeeded.min(remaining - unmatched_failed);
        DeviceCounts {
            succeeded: succeeded + unmatched_succeeded,
            failed: failed + unmatched_failed,
            unmatched: unmatched_succeeded + unmatched_failed,
        }
    }

    /// Returns the largest set of groups that are provably different devices.
    ///
    /// Its size never decreases when results are added, so the order of the results does not matter.
    fn largest_distinct_set(&self) -> Vec<Bucket> {
        let unmatched: Vec<Bucket> =
            self.0.iter().filter(|bucket| bucket.is_unmatched).copied().collect();
        let all = 1_usize << unmatched.len().min(MAX_UNMATCHED_BUCKETS);
        let mut best: (u32, Vec<Bucket>) = (0, Vec::new());
        for chosen in 0..all {
            let distinct: Vec<Bucket> = unmatched
                .iter()
                .enumerate()
                .filter(|(index, _)| index < &MAX_UNMATCHED_BUCKETS && chosen & (1 << index) != 0)
                .map(|(_, bucket)| *bucket)
                .collect();
            let differs = |bucket: &Bucket| {
                distinct.iter().all(|other| bucket.kind_mask & other.kind_mask != 0)
            };
            if !distinct.iter().all(differs) {
                continue;
            }
            let devices = self.0.iter().filter(|bucket| !bucket.is_unmatched && differs(bucket));
            let distinct: Vec<Bucket> = devices.copied().chain(distinct.iter().copied()).collect();
            let size = distinct.iter().map(Bucket::size).sum();
            if size > best.0 {
                best = (size, distinct);
            }
        }
        best.1
    }

    /// Adds a group to its bucket, or removes it, if it has a final result.
    fn count(&mut self, group: DeviceRef, state: DeviceState, change: i32) {
        let Some(precedence) = state.precedence else {
            return;
        };
        let is_unmatched = matches!(group, DeviceRef::UnmatchedResult(_));
        let kind_mask = state.kind_mask;
        let found = self.0.binary_search_by_key(&(is_unmatched, kind_mask), Bucket::key);
        let at = found.unwrap_or_else(|at| {
            self.0.insert(at, Bucket { is_unmatched, kind_mask, succeeded: 0, failed: 0 });
            at
        });
        if let Some(bucket) = self.0.get_mut(at) {
            let count = match precedence.outcome {
                Outcome::Succeeded => &mut bucket.succeeded,
                Outcome::Failed | Outcome::Interim => &mut bucket.failed,
            };
            *count = count.saturating_add_signed(change);
        }
        self.0.retain(|bucket| bucket.size() > 0);
    }
}

impl Bucket {
    /// The key of the order of the histogram.
    fn key(&self) -> (bool, u16) {
        (self.is_unmatched, self.kind_mask)
    }

    fn size(&self) -> u32 {
        self.succeeded + self.failed
    }
}

#[cfg(test)]
mod tests;
