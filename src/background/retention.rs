//! Retention: removing what is older than `journal.retention`.
//!
//! The times of entries are the system clock's, which may have been wrong when they were stored: an entry
//! that was stored while it was behind looks old once it is corrected. So the age of an entry is known by its
//! position: stored samples say which position the journal had reached at which time.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::SteadyClock;
use crate::{
    domain::clock::{Clock as _, Timestamp},
    invariants::Invariant,
    journal::{Journal, JournalError},
};

/// The interval between searches for old changes.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// The pause between two slices of trimming, which leaves the writer to others.
const TRIM_PAUSE: Duration = Duration::from_millis(20);
/// Samples of one retention. The last of them is how much longer a change may be kept.
const SAMPLES: u32 = 64;
/// The note of the journal that has the samples.
const KV_KEY: &str = "retention-samples";

/// Removes changes whose last event is older than `retention`, a bounded slice at a time, until `stop`.
/// Stores the clock's time for the next start.
pub async fn trim_journal(
    journal: Arc<dyn Journal>,
    clock: Arc<SteadyClock>,
    retention: Duration,
    stop: CancellationToken,
) {
    let mut is_start = true;
    loop {
        let pause = match trim_once(&*journal, &clock, retention, is_start).await {
            Ok(true) => TRIM_PAUSE,
            Ok(false) => TRIM_INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "old changes could not be removed");
                TRIM_INTERVAL
            }
        };
        is_start = false;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if pause == TRIM_INTERVAL {
            clock.record(&*journal).await;
        }
    }
}

/// Takes a sample when it is time for one, and removes a slice. Answers whether there may be more.
async fn trim_once(
    journal: &dyn Journal,
    clock: &SteadyClock,
    retention: Duration,
    is_start: bool,
) -> Result<bool, JournalError> {
    let now = clock.now();
    let before = now.minus(retention);
    let mut samples = PositionSamples::parse(&journal.get_kv(KV_KEY.into()).await?);
    let position = journal.coverage().await?.last;
    if samples.add(now, position, retention, is_start) {
        journal.put_kv(KV_KEY.into(), samples.to_bytes()).await?;
    }
    // By the sample's own time: what is between two samples need not be looked through.
    let (before, up_to) = match samples.newest_at_or_before(before) {
        _ if Invariant::SteadyClock.is_disabled() => (before, u64::MAX),
        Some(sample) => sample,
        None => return Ok(false),
    };
    journal.trim(before, up_to).await
}

/// When the journal had reached which position, both ascending. Leaving one out is safe: what it says of
/// is then kept until the next one is old enough.
#[derive(Debug, Default, PartialEq, Eq)]
struct PositionSamples(Vec<(Timestamp, u64)>);

// === impl Samples ===

impl PositionSamples {
    fn parse(bytes: &[u8]) -> Self {
        let (samples, _rest) = bytes.as_chunks::<16>();
        let samples = samples.iter().filter_map(|sample| {
            let (time, rest) = sample.split_first_chunk::<8>()?;
            let (position, _) = rest.split_first_chunk::<8>()?;
            let time = Timestamp::from_micros(i64::from_be_bytes(*time));
            Some((time, u64::from_be_bytes(*position)))
        });
        Self(samples.collect())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let each = self.0.iter().flat_map(|(time, position)| {
            let (time, position) = (time.as_micros().to_be_bytes(), position.to_be_bytes());
            time.into_iter().chain(position)
        });
        each.collect()
    }

    /// Adds a sample when the last one is old enough, or at a start. Answers whether it did. While the clock
    /// is behind the last sample there is none: nothing may look older than it is.
    fn add(&mut self, now: Timestamp, position: u64, retention: Duration, is_start: bool) -> bool {
        let apart = retention / SAMPLES;
        if position == 0 {
            // There is nothing that could be old.
            return false;
        }
        if let Some((last, reached)) = self.0.last() {
            let is_due = now.since(*last) >= apart || is_start;
            if now <= *last || position == *reached || !is_due {
                return false;
            }
        }
        self.0.push((now, position));
        self.prune(now.minus(retention), apart);
        true
    }

    /// Forgets what is older than the one that counts, and all but the last of those that are close together.
    fn prune(&mut self, before: Timestamp, apart: Duration) {
        let old = self
            .0
            .iter()
            .take_while(|(time, _)| *time <= before)
            .count();
        self.0.drain(..old.saturating_sub(1));
        let all = std::mem::take(&mut self.0);
        let count = all.len();
        for (index, sample) in all.into_iter().enumerate() {
            let is_close = self
                .0
                .last()
                .is_some_and(|(last, _)| sample.0.since(*last) < apart / 2);
            if is_close && index + 1 < count {
                continue;
            }
            self.0.push(sample);
        }
    }

    /// The newest sample of that time or before.
    fn newest_at_or_before(&self, then: Timestamp) -> Option<(Timestamp, u64)> {
        let old = self.0.iter().take_while(|(time, _)| *time <= then);
        old.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const BEGIN: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

    fn day(number: u32) -> Timestamp {
        BEGIN.plus(DAY * number)
    }

    #[test]
    fn a_position_is_as_old_as_the_first_sample_that_has_it() {
        let mut samples = PositionSamples::default();
        for number in 0..2_000 {
            samples.add(day(number), u64::from(number), 64 * DAY, false);
            assert!(samples.0.len() <= 67, "{}", samples.0.len());
        }
        let reached = samples.newest_at_or_before(day(1_999).minus(64 * DAY));
        assert_eq!(reached, Some((day(1_935), 1_935)));
        assert_eq!(samples.newest_at_or_before(day(0)), None);
        assert_eq!(PositionSamples::parse(&samples.to_bytes()), samples);
    }

    #[test]
    fn entries_stored_while_the_clock_is_behind_are_dated_by_the_next_sample() {
        let mut samples = PositionSamples::default();
        samples.add(day(500), 10, 400 * DAY, true);
        // The clock is set back by 401 days, and corrected.
        assert!(!samples.add(day(99), 20, 400 * DAY, true));
        assert!(!samples.add(day(499), 20, 400 * DAY, true));
        assert!(samples.add(day(502), 30, 400 * DAY, true));
        assert_eq!(samples.newest_at_or_before(day(501)), Some((day(500), 10)));
    }

    #[test]
    fn many_starts_take_no_more_samples_than_a_retention_has() {
        let mut samples = PositionSamples::default();
        for number in 0..10_000 {
            let now = BEGIN.plus(Duration::from_secs(60) * number);
            samples.add(now, u64::from(number), DAY, true);
            assert!(samples.0.len() <= 132, "{}", samples.0.len());
        }
        let old = BEGIN.plus(Duration::from_secs(60) * 9_999).minus(DAY);
        let (_, reached) = samples.newest_at_or_before(old).unwrap();
        // 1,440 minutes ago, and less than two samples more.
        assert!((8_510..=8_559).contains(&reached), "{reached}");
    }
}
