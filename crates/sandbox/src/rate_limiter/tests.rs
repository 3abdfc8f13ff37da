use super::*;

#[tokio::test(start_paused = true)]
async fn over_the_limit_the_limiter_returns_the_seconds_until_the_next_window() {
    let mut limiter = RateLimiter::new(2);
    assert_eq!((limiter.try_acquire(), limiter.try_acquire()), (Ok(()), Ok(())));
    tokio::time::advance(Duration::from_millis(10_500)).await;
    assert_eq!(limiter.try_acquire(), Err(50));
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(limiter.try_acquire(), Ok(()));
}

#[tokio::test]
async fn zero_means_no_limit() {
    let mut limiter = RateLimiter::new(0);
    assert!((0..10_000).all(|_| limiter.try_acquire().is_ok()));
}
