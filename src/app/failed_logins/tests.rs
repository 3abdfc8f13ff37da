use std::time::Duration;

use super::*;

#[test]
fn failed_log_ins_are_decoded_with_the_time_since_the_last_refusal() {
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    let failed = |since: Option<u64>| FailedLogins {
        refused: 1,
        unfinished: 2,
        since_refused: since.map(Duration::from_secs),
    };
    let stored = encode(failed(Some(10)), at(1_000));
    assert_eq!(decode(&stored, at(1_020)), failed(Some(30)));
    assert_eq!(decode(&stored, at(500)), failed(Some(0)));
    let stored = encode(failed(None), at(1_000));
    assert_eq!(decode(&stored, at(1_020)), failed(None));
    assert!(encode(FailedLogins::default(), at(1_000)).is_empty());
    assert_eq!(decode(&[], at(0)), FailedLogins::default());
}
