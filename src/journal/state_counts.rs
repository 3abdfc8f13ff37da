//! Number of changes in each state.

use crate::domain::state::ChangeState;

/// Number of changes in each state, in the order of [`ChangeState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts(pub [i64; ChangeState::ALL.len()]);

impl StateCounts {
    /// Returns the number of changes in a state.
    pub fn get(&self, state: ChangeState) -> i64 {
        let mut states = ChangeState::ALL.iter().zip(self.0);
        let found = states.find(|(other, _)| **other == state);
        found.map_or(0, |(_, count)| count)
    }

    /// Adds the counts of a delta.
    pub(super) fn apply(&mut self, delta: &Self) {
        for (count, changes) in self.0.iter_mut().zip(delta.0) {
            *count += changes;
        }
    }

    /// Adds a number of changes, which may be negative, to a state.
    pub(super) fn add(&mut self, state: ChangeState, changes: i64) {
        let states = ChangeState::ALL.iter().zip(&mut self.0);
        for (_, count) in states.filter(|(other, _)| **other == state) {
            *count += changes;
        }
    }
}
