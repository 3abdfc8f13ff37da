//! Divides limits among callers, so that none of them can use up a limit that all share.
//!
//! Half of a [`SharedLimit`] is reserved in equal parts for the callers, and the other half is common. A
//! caller uses its reserved part first. The total never exceeds the limit.
//!
//! [`CallerTurns`] let a caller do only a few things at a time, and the rest in turn.

mod limit;
mod turns;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

pub use limit::{SharePermit, SharedLimit};
pub use turns::{CallerTurns, Turn};

use crate::domain::caller_name::CallerName;

/// All limits that are divided, and the callers that they are divided among. Until the first
/// [`set_callers`](Self::set_callers), the only one is [`CallerName::anonymous`].
pub struct CallerShares(Mutex<Inner>);

struct Inner {
    callers: Vec<CallerName>,
    limits: Vec<Weak<SharedLimit>>,
}

impl Default for CallerShares {
    fn default() -> Self {
        let callers = vec![CallerName::anonymous()];
        Self(Mutex::new(Inner { callers, limits: Vec::new() }))
    }
}

impl CallerShares {
    /// Adds a limit. See [`SharedLimit::new`].
    pub fn limit(&self, capacity: usize, largest: usize) -> Arc<SharedLimit> {
        let mut inner = self.0.lock();
        let limit = Arc::new(SharedLimit::new(capacity, largest, &inner.callers));
        inner.limits.push(Arc::downgrade(&limit));
        limit
    }

    /// Divides all limits anew. Permits that are held stay valid and keep counting.
    pub fn set_callers(&self, callers: impl IntoIterator<Item = CallerName>) {
        let mut inner = self.0.lock();
        inner.callers = callers.into_iter().collect();
        inner.limits.retain(|limit| limit.strong_count() > 0);
        for limit in inner.limits.iter().filter_map(Weak::upgrade) {
            limit.set_callers(&inner.callers);
        }
    }
}
