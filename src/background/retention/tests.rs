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
    let stored = serde_json::to_vec(&samples).unwrap();
    assert_eq!(serde_json::from_slice::<PositionSamples>(&stored).unwrap(), samples);
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
