//! Follows the requests that commits touch, until they are quiet.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::newtypes::RequestId,
    journal::{CommitListener, WatchTarget},
};

/// Maximum number of requests that are followed. Beyond it, the requests of all changes with an unknown
/// outcome are listed again.
const MAX_FOLLOWED: usize = 4_096;

/// The requests that are followed.
#[derive(Default)]
pub(super) struct QuietRequests {
    touched: Mutex<TouchedTargets>,
    /// Notified after each commit that touched a target.
    pub(super) touched_again: Notify,
}

/// The targets that commits have touched.
#[derive(Default)]
struct TouchedTargets {
    /// The requests, with the time of their latest result.
    requests: HashMap<RequestId, Instant>,
    /// The latest time at which a request was not followed because of [`MAX_FOLLOWED`].
    overflowed_at: Option<Instant>,
    /// True if a change was touched: its outcome may have become unknown, or it may have ceased to be a
    /// rival of another change.
    is_sweep_due: bool,
}

impl QuietRequests {
    /// Follows a request, as if its latest result had arrived at this time. Has no effect if the request is
    /// followed already.
    pub(super) fn follow(&self, request: RequestId, last_result: Instant) {
        let mut touched = self.touched.lock();
        if touched.requests.len() < MAX_FOLLOWED {
            touched.requests.entry(request).or_insert(last_result);
        }
    }

    /// Returns the time until the first followed request is quiet.
    pub(super) fn time_until_quiet(&self, quiet_period: Duration) -> Duration {
        let touched = self.touched.lock();
        let oldest = touched.requests.values().min();
        oldest.map_or(Duration::MAX, |last_result| {
            (*last_result + quiet_period).saturating_duration_since(Instant::now())
        })
    }

    /// Takes the requests that are quiet, with the times of their latest results, and whether a sweep is due.
    pub(super) fn take_quiet(&self, quiet_period: Duration) -> (Vec<(RequestId, Instant)>, bool) {
        let now = Instant::now();
        let mut touched = self.touched.lock();
        let quiet = touched.requests.extract_if(|_, last_result| {
            now.saturating_duration_since(*last_result) >= quiet_period
        });
        (quiet.collect(), std::mem::take(&mut touched.is_sweep_due))
    }

    /// True if no result of a request has arrived since the request was taken.
    pub(super) fn is_still_quiet(&self, request: &RequestId, quiet_period: Duration) -> bool {
        let touched = self.touched.lock();
        let has_followed_all = touched
            .overflowed_at
            .is_none_or(|overflowed_at| overflowed_at.elapsed() >= quiet_period);
        has_followed_all && !touched.requests.contains_key(request)
    }
}

impl CommitListener for QuietRequests {
    fn on_commit(&self, targets: &[WatchTarget]) {
        if targets.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut touched = self.touched.lock();
        for target in targets {
            match target {
                WatchTarget::Request(request) => {
                    let has_capacity = touched.requests.len() < MAX_FOLLOWED;
                    if has_capacity || touched.requests.contains_key(request) {
                        touched.requests.insert(request.clone(), now);
                    } else {
                        touched.overflowed_at = Some(now);
                        touched.is_sweep_due = true;
                    }
                }
                WatchTarget::Change(_) => touched.is_sweep_due = true,
            }
        }
        self.touched_again.notify_one();
    }
}

#[cfg(test)]
mod tests;
