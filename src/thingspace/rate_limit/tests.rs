use super::*;

#[tokio::test(start_paused = true)]
async fn acquire_waits_within_the_deadline_and_otherwise_fails_at_once() {
    let limit = RateLimit::new(NonZeroU32::new(60).unwrap());
    for _ in 0..60 {
        limit.try_acquire().unwrap();
    }
    let start = Instant::now();
    limit.acquire(start + Duration::from_secs(2)).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 1);
    let rejected = limit.acquire(Instant::now() + Duration::from_millis(10)).await;
    assert!(rejected.unwrap_err() <= Duration::from_secs(1));
    assert_eq!(start.elapsed().as_secs(), 1, "without waiting");
}

#[tokio::test(start_paused = true)]
async fn a_pause_requested_by_thingspace_overrides_the_rate() {
    let limit = RateLimit::new(NonZeroU32::new(6_000).unwrap());
    limit.pause(Duration::from_secs(30));
    limit.pause(Duration::from_secs(1));
    assert_eq!(limit.try_acquire(), Err(Duration::from_secs(30)));
    let start = Instant::now();
    limit.acquire(start + Duration::from_secs(60)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_given_back_is_granted_again() {
    let limit = RateLimit::new(NonZeroU32::MIN);
    assert!(limit.try_acquire().is_ok());
    assert!(limit.try_acquire().is_err());
    limit.give_back();
    assert!(limit.try_acquire().is_ok());
    assert!(limit.try_acquire().is_err());
}
