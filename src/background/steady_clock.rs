//! A clock for irreversible decisions: deleting old changes, closing changes, dropping forwards.
//!
//! It follows the system clock unless that is more than [`TOLERANCE`] ahead of the elapsed time. The
//! elapsed time counts from the time stored in the journal, so a leap during a stop is detected too.
//! After a leap it runs at the speed of the monotonic clock, until the system clock has run steadily
//! for [`HOLD`]. It follows a system clock that is set back at once.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    domain::clock::{Clock, Timestamp},
    failpoints,
    journal::{Journal, JournalError},
};

/// Largest lead of the system clock that is followed. Longer than a restart.
const TOLERANCE: Duration = Duration::from_secs(60 * 60);
/// Time that a system clock with a larger lead must run steadily before it is followed.
const HOLD: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Change of the lead between two readings that counts as another leap.
const LEAP: Duration = Duration::from_secs(60);
/// Key of the time in the journal.
const KV_KEY: &str = "steady-clock";

/// The system clock without its forward leaps.
pub struct SteadyClock {
    system: Arc<dyn Clock>,
    state: Mutex<ClockState>,
}

struct ClockState {
    /// Time returned at `at`.
    time: Timestamp,
    at: Instant,
    /// Present while the system clock is not followed.
    hold: Option<ClockHold>,
}

struct ClockHold {
    /// Lead of the system clock at the last reading.
    ahead: Duration,
    since: Instant,
}

// === impl SteadyClock ===

impl SteadyClock {
    /// Continues from the time stored in the journal. A new journal starts at the system clock's time.
    ///
    /// # Errors
    ///
    /// Errors of the journal.
    pub async fn load(
        journal: &dyn Journal,
        system: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, JournalError> {
        let recorded = journal.get_kv(KV_KEY.into()).await?;
        let time = match <[u8; 8]>::try_from(recorded.as_slice()) {
            Ok(micros) => Timestamp::from_micros(i64::from_be_bytes(micros)),
            Err(_) if journal.kept_range().await?.last == 0 => system.now(),
            // Entries, but no stored time: treat the system clock as far ahead.
            Err(_) => Timestamp::from_micros(0),
        };
        let clock = Arc::new(Self::starting_at(time, system));
        clock.record(journal).await;
        Ok(clock)
    }

    fn starting_at(time: Timestamp, system: Arc<dyn Clock>) -> Self {
        Self { system, state: Mutex::new(ClockState { time, at: Instant::now(), hold: None }) }
    }

    /// Stores the current time for the next start.
    pub(super) async fn record(&self, journal: &dyn Journal) {
        let micros = self.now().as_micros().to_be_bytes();
        if let Err(error) = journal.put_kv(KV_KEY.into(), micros.into()).await {
            tracing::warn!(%error, "cannot store the steady clock's time: journal error");
        }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let system = self.system.now();
        if failpoints::is_active("retention-by-system-clock") {
            return system;
        }
        let mut state = self.state.lock();
        let at = Instant::now();
        let expected = state.time.plus(at.duration_since(state.at));
        state.time = state.follow(system, expected, at);
        state.at = at;
        state.time
    }
}

// === impl ClockState ===

impl ClockState {
    /// Returns the time to show. Updates the hold.
    fn follow(&mut self, system: Timestamp, expected: Timestamp, at: Instant) -> Timestamp {
        let ahead = system.since(expected);
        if ahead <= TOLERANCE {
            if self.hold.take().is_some() {
                tracing::info!("the system clock agrees with the stored time again");
            }
            return system;
        }
        match &mut self.hold {
            Some(hold) if hold.ahead.abs_diff(ahead) <= LEAP => {
                hold.ahead = ahead;
                if at.duration_since(hold.since) < HOLD {
                    return expected;
                }
                self.hold = None;
                tracing::warn!(
                    ahead_hours = ahead.as_secs() / 3_600,
                    "the system clock has run steadily for 3 days and is followed again: changes past \
                     journal.retention are deleted, and changes past changes.close_after are closed"
                );
                system
            }
            _ => {
                self.hold = Some(ClockHold { ahead, since: at });
                tracing::warn!(
                    ahead_hours = ahead.as_secs() / 3_600,
                    "the system clock is ahead of the time stored in the journal; no change is deleted \
                     or closed until it has run steadily for 3 days. Correct the clock if it is wrong. \
                     Do nothing if the gateway was stopped for that time"
                );
                expected
            }
        }
    }
}

#[cfg(test)]
mod tests;
