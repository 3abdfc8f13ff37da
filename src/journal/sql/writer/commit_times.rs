//! Durations of commits, which estimate the wait of a callback.

use std::time::Duration;

use tokio::time::Instant;

use crate::journal::sql::writer::queue::CALLBACKS_PER_COMMIT;

#[derive(Default)]
pub(super) struct CommitTimes {
    /// Start of the commit in progress.
    start: Option<Instant>,
    /// Duration of commits without callbacks while callbacks were queued.
    blocked: Duration,
    /// Smoothed duration of a commit with callbacks.
    per_commit: Duration,
}

impl CommitTimes {
    pub(super) fn begin_commit(&mut self) {
        self.start = Some(Instant::now());
    }

    /// Records the duration of a commit with callbacks, including the commits that delayed it. Per
    /// commit, since most of it is the sync: a slow disk that gets few callbacks is not overloaded.
    pub(super) fn end_commit(&mut self, has_callbacks: bool, is_delaying_callbacks: bool) {
        let took = self.start.take().map(|start| start.elapsed()).unwrap_or_default();
        if has_callbacks {
            let took = took + std::mem::take(&mut self.blocked);
            let before = self.per_commit;
            self.per_commit = if before.is_zero() { took } else { smooth(before, took) };
        } else if is_delaying_callbacks {
            self.blocked += took;
        } else if took < self.per_commit {
            // After a commit that hung, every callback may be rejected while other commits are in progress. Only
            // these can show then that the journal has recovered.
            self.per_commit = smooth(self.per_commit, took);
        }
    }

    /// Estimates the wait of a callback behind this number of queued ones.
    pub(super) fn expected_wait(&self, queued: usize) -> Duration {
        let rest = match self.start.map(|start| start.elapsed()) {
            // Past commits say nothing about an idle disk.
            None if queued == 0 => return Duration::ZERO,
            None => Duration::ZERO,
            // A commit that is slower than usual is expected to take twice its time so far. This
            // detects a disk that hangs.
            Some(elapsed) if elapsed > self.per_commit => elapsed,
            Some(elapsed) => self.per_commit - elapsed,
        };
        let commits = u32::try_from(queued / CALLBACKS_PER_COMMIT).unwrap_or(u32::MAX);
        rest.saturating_add(self.per_commit.saturating_mul(commits.saturating_add(1)))
    }
}

fn smooth(before: Duration, took: Duration) -> Duration {
    before / 4 * 3 + took / 4
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn commits_without_callbacks_end_the_rejection_of_callbacks_after_a_commit_that_hung() {
        let mut times = CommitTimes::default();
        times.begin_commit();
        advance(Duration::from_secs(20)).await;
        times.end_commit(true, false);
        times.begin_commit();
        assert!(times.expected_wait(0) > Duration::from_secs(20));
        for _ in 0..20 {
            advance(Duration::from_millis(5)).await;
            times.end_commit(false, false);
            times.begin_commit();
        }
        assert!(times.expected_wait(0) < Duration::from_secs(1), "{:?}", times.expected_wait(0));
    }
}
