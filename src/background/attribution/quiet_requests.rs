//! Follows the requests that commits touch, until they are quiet.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::{
    domain::newtypes::RequestId,
    journal::{Commit, CommitListener},
};

/// Maximum number of requests that are followed. Beyond it, the requests of all changes with an unknown
/// outcome are listed again.
const MAX_FOLLOWED: usize = 4_096;

/// The requests that are followed.
#[derive(Default)]
pub(super) struct QuietRequests {
    touched: Mutex<TouchedRequests>,
    /// Notified after each commit that touched a target.
    pub(super) touched_again: Notify,
    /// If other replicas receive results, too. A commit of theirs is seen late, so a request is quiet only if it is
    /// judged again after the quiet period, with the same last result.
    judged: Option<Mutex<JudgedRequests>>,
}

/// The last result of each request that was judged.
#[derive(Default)]
struct JudgedRequests(HashMap<RequestId, u64>);

/// The requests that commits have touched.
#[derive(Default)]
struct TouchedRequests {
    /// The requests, with the time of their latest result.
    requests: HashMap<RequestId, Instant>,
    /// The same, the oldest first.
    by_time: BTreeSet<(Instant, RequestId)>,
    /// The latest time at which a request was not followed because of [`MAX_FOLLOWED`].
    overflowed_at: Option<Instant>,
    /// True if the outcome of a change became unknown or ceased to be: it may have ceased to be a rival of
    /// another change.
    is_sweep_due: bool,
}

impl QuietRequests {
    /// Follows no request yet. `is_shared` is true if other replicas receive results, too.
    pub(super) fn new(is_shared: bool) -> Self {
        Self { judged: is_shared.then(Mutex::default), ..Self::default() }
    }

    /// Follows a request, as if its latest result had arrived at this time. Has no effect if the request is
    /// followed already.
    pub(super) fn follow(&self, request: RequestId, last_result: Instant) {
        let mut touched = self.touched.lock();
        if touched.requests.len() < MAX_FOLLOWED && !touched.requests.contains_key(&request) {
            touched.insert(request, last_result);
        }
    }

    /// Returns the time until the first followed request is quiet.
    pub(super) fn time_until_quiet(&self, quiet_period: Duration) -> Duration {
        let touched = self.touched.lock();
        let oldest = touched.by_time.first();
        oldest.map_or(Duration::MAX, |(last_result, _)| {
            (*last_result + quiet_period).saturating_duration_since(Instant::now())
        })
    }

    /// Takes the requests that are quiet, with the times of their latest results, and whether a sweep is due.
    pub(super) fn take_quiet(&self, quiet_period: Duration) -> (Vec<(RequestId, Instant)>, bool) {
        let now = Instant::now();
        let mut touched = self.touched.lock();
        let mut quiet = Vec::new();
        while let Some((last_result, _)) = touched.by_time.first()
            && now.saturating_duration_since(*last_result) >= quiet_period
            && let Some((last_result, request)) = touched.by_time.pop_first()
        {
            touched.requests.remove(&request);
            quiet.push((request, last_result));
        }
        (quiet, std::mem::take(&mut touched.is_sweep_due))
    }

    /// True if no result of a request has arrived since the request was taken. `last_result` is the position of the last
    /// one that its judgement has considered. If false, the request is to be judged again.
    pub(super) fn is_still_quiet(
        &self,
        request: &RequestId,
        last_result: u64,
        quiet_period: Duration,
    ) -> bool {
        let touched = self.touched.lock();
        let has_followed_all = touched
            .overflowed_at
            .is_none_or(|overflowed_at| overflowed_at.elapsed() >= quiet_period);
        let is_quiet = has_followed_all && !touched.requests.contains_key(request);
        let is_unchanged =
            |judged: &Mutex<JudgedRequests>| judged.lock().is_unchanged(request, last_result);
        is_quiet && self.judged.as_ref().is_none_or(is_unchanged)
    }
}

impl JudgedRequests {
    /// True if the request was judged with this last result before. Otherwise remembers it.
    fn is_unchanged(&mut self, request: &RequestId, last_result: u64) -> bool {
        let Self(judged) = self;
        if judged.get(request) == Some(&last_result) {
            return true;
        }
        if judged.len() >= MAX_FOLLOWED {
            // The requests are judged once more.
            judged.clear();
        }
        judged.insert(request.clone(), last_result);
        false
    }
}

impl TouchedRequests {
    /// Sets the time of the latest result of a request.
    fn insert(&mut self, request: RequestId, last_result: Instant) {
        if let Some(before) = self.requests.insert(request.clone(), last_result) {
            self.by_time.remove(&(before, request.clone()));
        }
        self.by_time.insert((last_result, request));
    }
}

impl CommitListener for QuietRequests {
    /// Before a read can see a result, so that its request is not quiet.
    fn before_commit(&self, commit: &Commit) {
        self.touch(commit);
    }

    fn on_commit(&self, commit: &Commit) {
        // Of another replica, this is the first notification.
        self.touch(commit);
        if commit.has_new_candidates {
            self.touched.lock().is_sweep_due = true;
        } else if commit.unattributed.is_empty() {
            return;
        }
        self.touched_again.notify_one();
    }

    fn on_new_epoch(&self) {
        self.touched.lock().is_sweep_due = true;
        self.touched_again.notify_one();
    }
}

impl QuietRequests {
    /// Follows the unattributed requests of a commit: their latest results arrive now.
    fn touch(&self, commit: &Commit) {
        if commit.unattributed.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut touched = self.touched.lock();
        for request in &commit.unattributed {
            let has_capacity = touched.requests.len() < MAX_FOLLOWED;
            if has_capacity || touched.requests.contains_key(request) {
                touched.insert(request.clone(), now);
            } else {
                touched.overflowed_at = Some(now);
                touched.is_sweep_due = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
