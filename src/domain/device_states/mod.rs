//! How many devices of a change have which final result.
//!
//! Results may name identifiers that were not sent, may come in any order, and
//! any number of times; the counts are the same for the same set of results.
//! A result is gathered with those of the same device: the device that it was
//! matched with, or else whatever shares an identifier with it. What shares
//! none with any device is a *stray*: it counts as one more device only if it
//! provably is none of the others. A result that names two devices proves nothing
//! of either and is not recorded here: both stay as they are until a look-up, or a
//! result of their own, settles them.
//!
//! Two are provably different when they have values of one kind (equal values
//! would have gathered them). So which strays count depends only on which
//! kinds are known of whom, and of that a small histogram is kept.

use serde::{Deserialize, Serialize};

use super::{
    matching::MatchKey,
    result::{Outcome, ResultPrecedence},
};

/// The counts of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// Devices whose final result is a success.
    #[serde(rename = "s")]
    pub succeeded: u32,
    /// Devices whose final result is a failure.
    #[serde(rename = "f")]
    pub failed: u32,
    /// How many of both are strays.
    #[serde(rename = "u")]
    pub unmatched: u32,
}

/// Whom results are gathered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceRef {
    /// A device that was sent, by its index.
    Device(u32),
    /// Nobody that was sent, as far as is known; by a number of its own.
    UnmatchedResult(i64),
}

/// What is known of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// The kinds of which a value is known: [`MatchKey::kind_bit`]s. Those
    /// that were sent for a device are known from the start.
    pub kind_mask: u16,
    /// The precedence of its deciding result: the highest of its final results.
    pub precedence: Option<ResultPrecedence>,
    /// The number of the deciding result: the first one with that precedence.
    pub decided_by: Option<i64>,
}

/// Where the groups of one change are kept.
pub trait DeviceStateStore {
    /// What can go wrong with keeping them.
    type Error;

    /// What is known of a group; of a stray that is not there, nothing.
    fn state(&mut self, group: DeviceRef) -> Result<DeviceState, Self::Error>;
    /// Keeps what is known of a group.
    fn put_state(&mut self, group: DeviceRef, answer: DeviceState) -> Result<(), Self::Error>;
    /// Which group has an identifier that results, not clients, have named.
    fn owner(&mut self, key: &MatchKey) -> Result<Option<DeviceRef>, Self::Error>;
    /// Notes that a group has an identifier.
    fn put_owner(&mut self, key: &MatchKey, group: DeviceRef) -> Result<(), Self::Error>;
    /// Gives all that a stray has to another group, and forgets the stray.
    fn merge(&mut self, unmatched: i64, into: DeviceRef) -> Result<(), Self::Error>;
}

/// How many groups with a final result there are of each sort.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
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

/// Sorts of strays beyond which not every combination is tried. In practice
/// there are one or two.
const MAX_UNMATCHED_BUCKETS: usize = 10;

// === impl Answer ===

impl DeviceState {
    /// Takes a result into account, if it is final.
    fn apply_result(&mut self, precedence: Option<ResultPrecedence>, number: Option<i64>) {
        if precedence > self.precedence {
            self.precedence = precedence;
            self.decided_by = number;
        } else if precedence.is_some() && precedence == self.precedence {
            self.decided_by = self.decided_by.min(number);
        }
    }
}

// === impl Tally ===

impl DeviceStates {
    /// Takes one result: the identifying keys that it names, the device that it
    /// was matched with, and its precedence if it is final. `number` is a number
    /// that no other result of the change has; earlier results have lower ones.
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
        // A matched device comes first; two devices that share an identifier
        // contradict each other, and stay apart.
        let target = matched
            .map(DeviceRef::Device)
            .or(groups.first().copied())
            .unwrap_or(DeviceRef::UnmatchedResult(number));

        let mut state = store.state(target)?;
        self.subtract(target, state);
        for other in groups {
            if let DeviceRef::UnmatchedResult(unmatched) = other
                && other != target
            {
                let known = store.state(other)?;
                self.subtract(other, known);
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
        self.add(target, state);
        store.put_state(target, state)
    }

    /// True if a result without a sent identifier names two devices: by two values of one
    /// kind, of which a device has one, or by keys that results of two devices have named before.
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

    /// Takes that all these keys are this device's. Answers `false`, and changes nothing, when what is
    /// gathered already says otherwise: a key is another device's, or two groups that would become one
    /// are different, having values of one kind.
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
        // It has a device: no number of a stray is used.
        self.record(store, keys, Some(device), None, i64::MAX)?;
        Ok(true)
    }

    /// The counts for a change of so many devices.
    pub fn counts(&self, device_count: u32) -> DeviceCounts {
        let best = self.largest_distinct_set();
        let sum = |rows: &[Bucket], is_unmatched: bool| {
            let rows = || {
                rows.iter()
                    .filter(move |row| row.is_unmatched == is_unmatched)
            };
            let succeeded: u32 = rows().map(|row| row.succeeded).sum();
            let failed: u32 = rows().map(|row| row.failed).sum();
            (succeeded, failed)
        };
        // A device that was matched always counts, also where the largest family is one without it.
        let (succeeded, failed) = sum(&self.0, false);
        let (unmatched_succeeded, unmatched_failed) = sum(&best, true);
        let size: u32 = best.iter().map(|row| row.succeeded + row.failed).sum();
        // More results than devices can only belong to other requests. Failures are counted first.
        let remaining = size.min(device_count).saturating_sub(succeeded + failed);
        let unmatched_failed = unmatched_failed.min(remaining);
        let unmatched_succeeded = unmatched_succeeded.min(remaining - unmatched_failed);
        DeviceCounts {
            succeeded: succeeded + unmatched_succeeded,
            failed: failed + unmatched_failed,
            unmatched: unmatched_succeeded + unmatched_failed,
        }
    }

    /// The largest set of groups that provably are different devices: all
    /// matched devices are; a stray differs from whom it shares a kind with.
    ///
    /// Its size never falls as results are added, so whether a change is
    /// complete does not depend on their order.
    fn largest_distinct_set(&self) -> Vec<Bucket> {
        let unmatched: Vec<Bucket> = self
            .0
            .iter()
            .filter(|row| row.is_unmatched)
            .copied()
            .collect();
        let all = 1_usize << unmatched.len().min(MAX_UNMATCHED_BUCKETS);
        let mut best: (u32, Vec<Bucket>) = (0, Vec::new());
        for chosen in 0..all {
            let distinct: Vec<Bucket> = unmatched
                .iter()
                .enumerate()
                .filter(|(place, _)| place < &MAX_UNMATCHED_BUCKETS && chosen & (1 << place) != 0)
                .map(|(_, row)| *row)
                .collect();
            let differs = |row: &Bucket| {
                distinct
                    .iter()
                    .all(|other| row.kind_mask & other.kind_mask != 0)
            };
            if !distinct.iter().all(differs) {
                continue;
            }
            let devices = self
                .0
                .iter()
                .filter(|row| !row.is_unmatched && differs(row));
            let distinct: Vec<Bucket> = devices.copied().chain(distinct.iter().copied()).collect();
            let size = distinct.iter().map(|row| row.succeeded + row.failed).sum();
            if size > best.0 {
                best = (size, distinct);
            }
        }
        best.1
    }

    fn add(&mut self, group: DeviceRef, answer: DeviceState) {
        if let Some(verdict) = answer.precedence {
            *self.count_mut(group, answer.kind_mask, verdict.outcome) += 1;
        }
    }

    fn subtract(&mut self, group: DeviceRef, answer: DeviceState) {
        if let Some(verdict) = answer.precedence {
            let count = self.count_mut(group, answer.kind_mask, verdict.outcome);
            *count = count.saturating_sub(1);
            self.0.retain(|row| row.succeeded + row.failed > 0);
        }
    }

    fn count_mut(&mut self, group: DeviceRef, kind_mask: u16, outcome: Outcome) -> &mut u32 {
        let is_unmatched = matches!(group, DeviceRef::UnmatchedResult(_));
        let sorted = |row: &Bucket| (row.is_unmatched, row.kind_mask);
        let at = match self
            .0
            .binary_search_by_key(&(is_unmatched, kind_mask), sorted)
        {
            Ok(at) => at,
            Err(at) => {
                let row = Bucket {
                    is_unmatched,
                    kind_mask,
                    succeeded: 0,
                    failed: 0,
                };
                self.0.insert(at, row);
                at
            }
        };
        #[allow(
            clippy::indexing_slicing,
            reason = "found or inserted there just above"
        )]
        let row = &mut self.0[at];
        match outcome {
            Outcome::Succeeded => &mut row.succeeded,
            Outcome::Failed | Outcome::Interim => &mut row.failed,
        }
    }
}

#[cfg(test)]
mod tests;
