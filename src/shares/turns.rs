//! Turns: a caller does a few things at a time, and the rest in turn.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::caller_name::CallerName;

/// Gives each caller the same number of turns at a time. Turns of a caller beyond it wait in the order of their
/// requests. Callers do not wait for each other. The number of waiting turns has no bound of its own: limit the calls.
#[derive(Debug)]
pub struct CallerTurns {
    per_caller: usize,
    /// The callers that have or await a turn, and some that had one.
    callers: Mutex<HashMap<CallerName, Arc<Semaphore>>>,
}

/// A turn of a caller, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// Never `None`: the semaphore is never closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl CallerTurns {
    /// Gives each caller this number of turns at a time.
    pub fn new(per_caller: usize) -> Self {
        Self { per_caller, callers: Mutex::default() }
    }

    /// Waits for a turn of the caller.
    pub async fn acquire(&self, caller: &CallerName) -> Turn {
        let turns = self.turns_of(caller);
        Turn { _permit: turns.acquire_owned().await.ok() }
    }

    fn turns_of(&self, caller: &CallerName) -> Arc<Semaphore> {
        let mut callers = self.callers.lock();
        if let Some(turns) = callers.get(caller) {
            return Arc::clone(turns);
        }
        // Forgets the callers that are idle, so that there are never more entries than calls and one.
        callers.retain(|_, turns| Arc::strong_count(turns) > 1);
        let turns = Arc::new(Semaphore::new(self.per_caller));
        callers.insert(caller.clone(), Arc::clone(&turns));
        turns
    }
}

#[cfg(test)]
mod tests;
