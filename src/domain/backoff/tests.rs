use super::*;

#[test]
fn a_delay_doubles_up_to_its_bound_and_varies_by_a_half() {
    let backoff = Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(30) };
    let seconds = |failures, random| backoff.jittered_delay(failures, random).as_secs_f64();
    let full: Vec<f64> = (0..8).map(|failures| seconds(failures, 1.0)).collect();
    assert_eq!(full, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    assert_eq!((seconds(3, 0.0), seconds(u32::MAX, 0.0)), (2.0, 15.0));
}
