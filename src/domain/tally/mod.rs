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
    result::{Outcome, Verdict},
};

/// The counts of a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
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
pub enum Group {
    /// A device that was sent, by its index.
    Device(u32),
    /// Nobody that was sent, as far as is known; by a number of its own.
    Stray(i64),
}

/// What is known of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// The kinds of which a value is known: [`MatchKey::kind_bit`]s. Those
    /// that were sent for a device are known from the start.
    pub kinds: u16,
    /// The precedence of its deciding result: the highest of its final results.
    pub verdict: Option<Verdict>,
    /// The number of the deciding result: the first one with that precedence.
    pub decided_by: Option<i64>,
}

/// Where the groups of one change are kept.
pub trait AnswerBook {
    /// What can go wrong with keeping them.
    type Error;

    /// What is known of a group; of a stray that is not there, nothing.
    fn answer(&mut self, group: Group) -> Result<Answer, Self::Error>;
    /// Keeps what is known of a group.
    fn put_answer(&mut self, group: Group, answer: Answer) -> Result<(), Self::Error>;
    /// Which group has an identifier that results, not clients, have named.
    fn owner(&mut self, key: &MatchKey) -> Result<Option<Group>, Self::Error>;
    /// Notes that a group has an identifier.
    fn put_owner(&mut self, key: &MatchKey, group: Group) -> Result<(), Self::Error>;
    /// Gives all that a stray has to another group, and forgets the stray.
    fn dissolve(&mut self, stray: i64, into: Group) -> Result<(), Self::Error>;
}

/// How many groups with a final result there are of each sort.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tally(Vec<Row>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    #[serde(rename = "x")]
    stray: bool,
    #[serde(rename = "k")]
    kinds: u16,
    #[serde(rename = "s")]
    succeeded: u32,
    #[serde(rename = "f")]
    failed: u32,
}

/// Sorts of strays beyond which not every combination is tried. In practice
/// there are one or two.
const MAX_SORTS: usize = 10;

// === impl Answer ===

impl Answer {
    /// Takes a result into account, if it is final.
    fn decide(&mut self, verdict: Option<Verdict>, number: Option<i64>) {
        if verdict > self.verdict {
            self.verdict = verdict;
            self.decided_by = number;
        } else if verdict.is_some() && verdict == self.verdict {
            self.decided_by = self.decided_by.min(number);
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Takes one result: the identifying keys that it names, the device that it
    /// was matched with, and its precedence if it is final. `number` is a number
    /// that no other result of the change has; earlier results have lower ones.
    pub fn record<B: AnswerBook>(
        &mut self,
        book: &mut B,
        keys: &[MatchKey],
        matched: Option<u32>,
        verdict: Option<Verdict>,
        number: i64,
    ) -> Result<(), B::Error> {
        let mut groups: Vec<Group> = matched.map(Group::Device).into_iter().collect();
        for key in keys {
            groups.extend(book.owner(key)?);
        }
        groups.sort_unstable();
        groups.dedup();
        // A matched device comes first; two devices that share an identifier
        // contradict each other, and stay apart.
        let home = matched
            .map(Group::Device)
            .or(groups.first().copied())
            .unwrap_or(Group::Stray(number));

        let mut answer = book.answer(home)?;
        self.subtract(home, answer);
        for other in groups {
            if let Group::Stray(stray) = other
                && other != home
            {
                let known = book.answer(other)?;
                self.subtract(other, known);
                answer.kinds |= known.kinds;
                answer.decide(known.verdict, known.decided_by);
                book.dissolve(stray, home)?;
            }
        }
        for key in keys {
            answer.kinds |= key.kind_bit();
            if book.owner(key)?.is_none() {
                book.put_owner(key, home)?;
            }
        }
        answer.decide(verdict, Some(number));
        self.add(home, answer);
        book.put_answer(home, answer)
    }

    /// True if a result without a sent identifier names two devices: by two values of one
    /// kind, of which a device has one, or by keys that results of two devices have named before.
    pub fn is_ambiguous<B: AnswerBook>(book: &mut B, keys: &[MatchKey]) -> Result<bool, B::Error> {
        let mut first = None;
        for (index, key) in keys.iter().enumerate() {
            let is_another =
                |other: &MatchKey| other.kind_bit() == key.kind_bit() && !other.is_same(key);
            if keys.iter().skip(index + 1).any(is_another) {
                return Ok(true);
            }
            let Some(Group::Device(device)) = book.owner(key)? else {
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
    pub fn join<B: AnswerBook>(
        &mut self,
        book: &mut B,
        keys: &[MatchKey],
        device: u32,
    ) -> Result<bool, B::Error> {
        let home = Group::Device(device);
        let mut groups = vec![home];
        for key in keys {
            groups.extend(book.owner(key)?);
        }
        groups.sort_unstable();
        groups.dedup();
        let mut kinds = 0;
        for group in &groups {
            let known = book.answer(*group)?.kinds;
            let is_another = matches!(group, Group::Device(_)) && *group != home;
            if is_another || kinds & known != 0 {
                return Ok(false);
            }
            kinds |= known;
        }
        // It has a device: no number of a stray is used.
        self.record(book, keys, Some(device), None, i64::MAX)?;
        Ok(true)
    }

    /// The counts for a change of so many devices.
    pub fn counts(&self, device_count: u32) -> Counts {
        let best = self.largest_family();
        let sum = |rows: &[Row], stray: bool| {
            let rows = || rows.iter().filter(move |row| row.stray == stray);
            let succeeded: u32 = rows().map(|row| row.succeeded).sum();
            let failed: u32 = rows().map(|row| row.failed).sum();
            (succeeded, failed)
        };
        // A device that was matched always counts, also where the largest family is one without it.
        let (succeeded, failed) = sum(&self.0, false);
        let (stray_succeeded, stray_failed) = sum(&best, true);
        let size: u32 = best.iter().map(|row| row.succeeded + row.failed).sum();
        // More results than devices can only belong to other requests. Failures are counted first.
        let room = size.min(device_count).saturating_sub(succeeded + failed);
        let stray_failed = stray_failed.min(room);
        let stray_succeeded = stray_succeeded.min(room - stray_failed);
        Counts {
            succeeded: succeeded + stray_succeeded,
            failed: failed + stray_failed,
            unmatched: stray_succeeded + stray_failed,
        }
    }

    /// The largest set of groups that provably are different devices: all
    /// matched devices are; a stray differs from whom it shares a kind with.
    ///
    /// Its size never falls as results are added, so whether a change is
    /// complete does not depend on their order.
    fn largest_family(&self) -> Vec<Row> {
        let strays: Vec<Row> = self.0.iter().filter(|row| row.stray).copied().collect();
        let all = 1_usize << strays.len().min(MAX_SORTS);
        let mut best: (u32, Vec<Row>) = (0, Vec::new());
        for chosen in 0..all {
            let family: Vec<Row> = strays
                .iter()
                .enumerate()
                .filter(|(place, _)| place < &MAX_SORTS && chosen & (1 << place) != 0)
                .map(|(_, row)| *row)
                .collect();
            let differs = |row: &Row| family.iter().all(|other| row.kinds & other.kinds != 0);
            if !family.iter().all(differs) {
                continue;
            }
            let devices = self.0.iter().filter(|row| !row.stray && differs(row));
            let family: Vec<Row> = devices.copied().chain(family.iter().copied()).collect();
            let size = family.iter().map(|row| row.succeeded + row.failed).sum();
            if size > best.0 {
                best = (size, family);
            }
        }
        best.1
    }

    fn add(&mut self, group: Group, answer: Answer) {
        if let Some(verdict) = answer.verdict {
            *self.count_of(group, answer.kinds, verdict.outcome) += 1;
        }
    }

    fn subtract(&mut self, group: Group, answer: Answer) {
        if let Some(verdict) = answer.verdict {
            let count = self.count_of(group, answer.kinds, verdict.outcome);
            *count = count.saturating_sub(1);
            self.0.retain(|row| row.succeeded + row.failed > 0);
        }
    }

    fn count_of(&mut self, group: Group, kinds: u16, outcome: Outcome) -> &mut u32 {
        let stray = matches!(group, Group::Stray(_));
        let sorted = |row: &Row| (row.stray, row.kinds);
        let at = match self.0.binary_search_by_key(&(stray, kinds), sorted) {
            Ok(at) => at,
            Err(at) => {
                let row = Row {
                    stray,
                    kinds,
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
