//! Deletes changes that are older than `journal.retention`.
//!
//! Stored times come from the system clock, which may have been wrong. The age of an entry therefore
//! follows from its position: stored samples map positions to times of the steady clock.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    background::steady_clock::SteadyClock,
    domain::clock::{Clock as _, Timestamp},
    failpoints,
    journal::{Journal, JournalError},
};

/// Interval between two searches for old changes.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// Pause between two slices of a trim, so that other writes get their turn.
const TRIM_PAUSE: Duration = Duration::from_millis(20);
/// Samples per retention period. A change may stay longer than the retention by one sample interval.
const SAMPLES: u32 = 64;
/// Key of the samples in the journal.
const KV_KEY: &str = "retention-samples";

/// Deletes changes whose last event is older than `retention`, one bounded slice at a time.
/// Records the clock's time for the next start.
pub async fn trim_journal(journal: Arc<dyn Journal>, clock: Arc<SteadyClock>, retention: Duration) {
    let mut is_start = true;
    loop {
        let pause = match trim_once(&*journal, &clock, retention, is_start).await {
            Ok(true) => TRIM_PAUSE,
            Ok(false) => TRIM_INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "cannot delete old changes: journal error");
                TRIM_INTERVAL
            }
        };
        is_start = false;
        sleep(pause).await;
        if pause == TRIM_INTERVAL {
            clock.record(&*journal).await;
        }
    }
}

/// Takes a sample if one is due, and deletes one slice. Returns true if more may be left.
async fn trim_once(
    journal: &dyn Journal,
    clock: &SteadyClock,
    retention: Duration,
    is_start: bool,
) -> Result<bool, JournalError> {
    let now = clock.now();
    let before = now.minus(retention);
    let samples = journal.get_kv(KV_KEY.into()).await?;
    let mut samples: PositionSamples = serde_json::from_slice(&samples).unwrap_or_default();
    let position = journal.kept_range().await?.last;
    if samples.add(now, position, retention, is_start) {
        journal.put_kv(KV_KEY.into(), json!(samples).to_string().into()).await?;
    }
    // The sample's own time is the limit: entries between two samples need no search.
    let (before, up_to) = match samples.newest_at_or_before(before) {
        _ if failpoints::is_active("retention-by-system-clock") => (before, u64::MAX),
        Some(sample) => sample,
        None => return Ok(false),
    };
    journal.trim(before, up_to).await
}

/// Times and the positions that the journal had reached, both ascending. A missing sample is safe: its
/// entries stay until the next sample is old enough.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PositionSamples(Vec<(Timestamp, u64)>);

impl PositionSamples {
    /// Adds a sample if one is due, and always at a start. Returns true if it did. Adds none while the
    /// clock is behind the last sample, so that no entry looks older than it is.
    fn add(&mut self, now: Timestamp, position: u64, retention: Duration, is_start: bool) -> bool {
        let interval = retention / SAMPLES;
        if position == 0 {
            return false;
        }
        if let Some((last, reached)) = self.0.last() {
            let is_due = now.since(*last) >= interval || is_start;
            if now <= *last || position == *reached || !is_due {
                return false;
            }
        }
        // Of the samples past the retention, only the newest one is needed.
        let old = self.0.iter().take_while(|(time, _)| *time <= now.minus(retention)).count();
        self.0.drain(..old.saturating_sub(1));
        self.0.dedup_by(|later, kept| later.0.since(kept.0) < interval / 2);
        self.0.push((now, position));
        true
    }

    /// Returns the newest sample at or before a time.
    fn newest_at_or_before(&self, then: Timestamp) -> Option<(Timestamp, u64)> {
        self.0.iter().take_while(|(time, _)| *time <= then).last().copied()
    }
}

#[cfg(test)]
mod tests;
