use proptest::prelude::*;
use tokio::time::advance;

use super::*;

fn bucket(per_minute: u32) -> TokenBucket {
    TokenBucket::new(NonZeroU32::new(per_minute).unwrap(), Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_full_bucket_grants_a_tenth_of_a_minute_and_then_the_rate() {
    let mut bucket = bucket(100);
    for _ in 0..10 {
        bucket.take(1, Instant::now()).unwrap();
    }
    let delay = bucket.take(1, Instant::now()).unwrap_err();
    assert_eq!(delay, Duration::from_millis(600));
    advance(delay).await;
    bucket.take(1, Instant::now()).unwrap();
    assert!(bucket.take(1, Instant::now()).is_err());
    bucket.give_back(1);
    bucket.take(1, Instant::now()).unwrap();
    advance(Duration::from_secs(3_600)).await;
    bucket.take(10, Instant::now()).unwrap();
    assert!(bucket.take(1, Instant::now()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_bucket_of_a_low_rate_holds_one_token() {
    let mut bucket = bucket(1);
    bucket.take(1, Instant::now()).unwrap();
    assert_eq!(bucket.take(1, Instant::now()), Err(Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_more_than_the_bucket_holds_waits_until_it_is_full_and_is_paid_later() {
    let mut bucket = bucket(1_000);
    bucket.take(1, Instant::now()).unwrap();
    let delay = bucket.take(5_000, Instant::now()).unwrap_err();
    assert_eq!(delay, Duration::from_millis(60));
    advance(delay).await;
    bucket.take(5_000, Instant::now()).unwrap();
    // 5,000 tokens take five minutes; the last hundred need not be there before the next one.
    let delay = bucket.check(1, Instant::now()).unwrap_err();
    assert_eq!(delay, Duration::from_millis(300_000 - 6_000 + 60));
}

#[tokio::test(start_paused = true)]
async fn a_new_rate_applies_to_the_missing_tokens() {
    let mut bucket = bucket(100);
    bucket.take(100, Instant::now()).unwrap();
    bucket.set_rate(NonZeroU32::new(1_000).unwrap(), Instant::now());
    // 100 tokens are missing, and a full bucket holds 100.
    assert_eq!(bucket.check(1, Instant::now()), Err(Duration::from_millis(60)));
    bucket.set_rate(NonZeroU32::new(10).unwrap(), Instant::now());
    assert_eq!(bucket.check(1, Instant::now()), Err(Duration::from_secs(600)));
}

proptest! {
    #[test]
    fn in_any_time_no_more_is_granted_than_the_rate_and_one_burst_allow(
        per_minute in 1..5_000_u32,
        steps in prop::collection::vec((0..20_u32, 0..5_000_u64), 1..100),
    ) {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(NonZeroU32::new(per_minute).unwrap(), start);
        let burst = u64::from((per_minute / 10).max(1));
        let (mut now, mut granted) = (start, 0_u64);
        for (tokens, millis) in steps {
            now += Duration::from_millis(millis);
            let before = granted;
            match bucket.take(tokens, now) {
                Ok(()) => granted += u64::from(tokens),
                Err(delay) => {
                    prop_assert!(bucket.check(tokens, now + delay).is_ok());
                    let earlier = now + delay.saturating_sub(Duration::from_millis(1));
                    prop_assert!(delay < Duration::from_millis(1) || bucket.check(tokens, earlier).is_err());
                }
            }
            let elapsed = u64::try_from((now - start).as_millis()).unwrap();
            let earned = elapsed * u64::from(per_minute) / 60_000;
            // The last request may borrow.
            prop_assert!(before <= burst + earned + 20, "{granted} {burst} {earned}");
        }
    }
}
