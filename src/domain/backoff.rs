//! Exponential back-off with jitter.

use std::time::Duration;

/// The delay before the next try after `failures` failed ones: `first` after the first failure, twice
/// as long after each further one, at most `longest`.
///
/// Between half of that and all of it is used, as `chance` (from 0 to 1) decides, so that clients that
/// failed together do not come back together.
pub fn delay((first, longest): (Duration, Duration), failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = first.saturating_mul(1 << doublings).min(longest);
    full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_its_bound_and_varies_by_a_half() {
        let seconds = |failures, chance| {
            let range = (Duration::from_secs(1), Duration::from_secs(30));
            delay(range, failures, chance).as_secs_f64()
        };
        let full: Vec<f64> = (0..8).map(|failures| seconds(failures, 1.0)).collect();
        assert_eq!(full, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!((seconds(3, 0.0), seconds(u32::MAX, 0.0)), (2.0, 15.0));
    }
}
