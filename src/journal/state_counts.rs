//! How many changes are in which state.

use crate::domain::state::ChangeState;

/// How many changes are in each state, in the order of [`ChangeState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts(pub [i64; ChangeState::ALL.len()]);

// === impl Census ===

impl StateCounts {
    /// How many are in this state.
    pub fn get(&self, state: ChangeState) -> i64 {
        let mut states = ChangeState::ALL.iter().zip(self.0);
        let found = states.find(|(other, _)| **other == state);
        found.map_or(0, |(_, count)| count)
    }

    pub(super) fn apply(&mut self, delta: &Self) {
        for (count, changes) in self.0.iter_mut().zip(delta.0) {
            *count += changes;
        }
    }

    /// One change more, or less, in this state.
    pub(super) fn add(&mut self, state: ChangeState, changes: i64) {
        let states = ChangeState::ALL.iter().zip(&mut self.0);
        for (_, count) in states.filter(|(other, _)| **other == state) {
            *count += changes;
        }
    }
}
