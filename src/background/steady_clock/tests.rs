use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use super::*;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BEGIN: Timestamp = Timestamp::from_micros(1_000_000_000_000_000);

/// A system clock that follows tokio's paused clock with an offset in seconds.
struct System {
    began: Instant,
    wrong_by: AtomicI64,
}

impl System {
    fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), wrong_by: AtomicI64::new(0) })
    }

    fn true_time(&self) -> Timestamp {
        BEGIN.plus(self.began.elapsed())
    }

    fn set_ahead_by(&self, ahead: Duration) {
        self.wrong_by.store(ahead.as_secs().cast_signed(), Relaxed);
    }

    fn set_behind_by(&self, behind: Duration) {
        self.wrong_by.store(-behind.as_secs().cast_signed(), Relaxed);
    }
}

impl Clock for System {
    fn now(&self) -> Timestamp {
        let micros = self.wrong_by.load(Relaxed) * 1_000_000;
        Timestamp::from_micros(self.true_time().as_micros() + micros)
    }
}

/// Advances the time in steps and reads the clock in each, as the background jobs do.
async fn pass(clock: &SteadyClock, mut time: Duration) {
    while time > Duration::ZERO {
        let step = time.min(Duration::from_secs(600));
        tokio::time::advance(step).await;
        time -= step;
        clock.now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_starts_401_days_ahead_and_is_corrected_within_three_days_is_never_followed() {
    let system = System::new();
    system.set_ahead_by(401 * DAY);
    let clock = SteadyClock::starting_at(BEGIN, system.clone());
    assert_eq!(clock.now(), BEGIN);
    pass(&clock, 71 * HOUR).await;
    assert_eq!(clock.now(), system.true_time());
    system.set_ahead_by(Duration::ZERO);
    pass(&clock, 10 * DAY).await;
    assert_eq!(clock.now(), system.true_time());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_leaps_while_it_is_watched_starts_three_days_anew_with_each_leap() {
    let system = System::new();
    let clock = SteadyClock::starting_at(BEGIN, system.clone());
    pass(&clock, HOUR).await;
    for days in [401, 30, 401] {
        system.set_ahead_by(days * DAY);
        pass(&clock, 71 * HOUR).await;
        assert_eq!(clock.now(), system.true_time());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_was_really_switched_off_follows_after_three_days() {
    let system = System::new();
    let clock = SteadyClock::starting_at(BEGIN.minus(401 * DAY), system.clone());
    pass(&clock, 71 * HOUR).await;
    assert_eq!(clock.now(), system.true_time().minus(401 * DAY));
    pass(&clock, 2 * HOUR).await;
    assert_eq!(clock.now(), system.true_time());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_is_followed_at_once_and_not_when_it_leaps_forward_again() {
    let system = System::new();
    let clock = SteadyClock::starting_at(BEGIN, system.clone());
    system.set_behind_by(30 * DAY);
    assert_eq!(clock.now(), BEGIN.minus(30 * DAY));
    pass(&clock, 5 * DAY).await;
    system.set_behind_by(Duration::ZERO);
    assert_eq!(clock.now(), system.true_time().minus(30 * DAY));
    pass(&clock, 73 * HOUR).await;
    assert_eq!(clock.now(), system.true_time());
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_takes_less_than_an_hour_is_no_leap() {
    let system = System::new();
    let clock = SteadyClock::starting_at(BEGIN.minus(HOUR), system);
    assert_eq!(clock.now(), BEGIN);
}
