use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::*;

fn local_limit(per_minute: u32) -> RateLimit {
    RateLimit::new("changes", NonZeroU32::new(per_minute).unwrap(), None)
}

#[tokio::test(start_paused = true)]
async fn acquire_waits_within_the_deadline_and_otherwise_fails_at_once() {
    let limit = local_limit(60);
    for _ in 0..60 {
        limit.try_acquire().unwrap();
    }
    let start = Instant::now();
    limit.acquire(start + Duration::from_secs(2)).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 1);
    let rejected = limit.acquire(Instant::now() + Duration::from_millis(10)).await;
    assert!(matches!(rejected, Err(NoPermit::Delayed(delay)) if delay <= Duration::from_secs(1)));
    assert_eq!(start.elapsed().as_secs(), 1, "without waiting");
}

#[tokio::test(start_paused = true)]
async fn a_pause_requested_by_thingspace_overrides_the_rate() {
    let limit = local_limit(6_000);
    limit.pause(Duration::from_secs(30)).await;
    limit.pause(Duration::from_secs(1)).await;
    assert_eq!(limit.try_acquire(), Err(Duration::from_secs(30)));
    let start = Instant::now();
    limit.acquire(start + Duration::from_secs(60)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_given_back_is_granted_again() {
    let limit = local_limit(1);
    assert!(limit.try_acquire().is_ok());
    assert!(limit.try_acquire().is_err());
    limit.give_back().await;
    assert!(limit.try_acquire().is_ok());
    assert!(limit.try_acquire().is_err());
}

/// Permits that replicas share. There are no more when they have been taken.
#[derive(Default)]
struct FakeLimits {
    permits: AtomicU32,
    requests: AtomicU32,
    paused: AtomicU32,
    is_away: AtomicBool,
}

#[async_trait]
impl SharedRateLimits for FakeLimits {
    async fn take_permit(
        &self,
        limit: &str,
        per_minute: u32,
    ) -> Result<Result<(), Duration>, String> {
        assert_eq!((limit, per_minute), ("changes", 6));
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) {
            return Err("the database is unavailable".into());
        }
        let take = |permits: u32| permits.checked_sub(1);
        let taken = self.permits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Ok(taken.map(drop).map_err(|_| Duration::from_secs(10)))
    }

    async fn give_back_permit(&self, _: &str, _: u32) -> Result<(), String> {
        self.permits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn pause_permits(&self, _: &str, _: Duration) -> Result<(), String> {
        self.paused.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn shared_limits() -> (Arc<FakeLimits>, [RateLimit; 2]) {
    let limits = Arc::new(FakeLimits::default());
    let per_minute = NonZeroU32::new(6).unwrap();
    let replicas = [(); 2].map(|()| RateLimit::new("changes", per_minute, Some(limits.clone())));
    (limits, replicas)
}

#[tokio::test(start_paused = true)]
async fn replicas_share_permits_and_never_take_one_without_a_wait() {
    let (limits, [a, b]) = shared_limits();
    limits.permits.store(2, Ordering::Relaxed);
    assert!(a.try_acquire().is_err());
    a.acquire(Instant::now()).await.unwrap();
    b.acquire(Instant::now()).await.unwrap();
    let no_permit = Err(NoPermit::Delayed(Duration::from_secs(10)));
    assert_eq!(a.acquire(Instant::now()).await, no_permit);
    b.give_back().await;
    b.acquire(Instant::now()).await.unwrap();
    b.pause(Duration::from_secs(3_600)).await;
    assert_eq!(limits.paused.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn many_waiting_callers_ask_for_shared_permits_as_often_as_one() {
    let (limits, [limit, _]) = shared_limits();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut calls = JoinSet::new();
    let limit = Arc::new(limit);
    for _ in 0..1_000 {
        let limit = Arc::clone(&limit);
        calls.spawn(async move { limit.acquire(deadline).await });
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    limits.permits.store(1, Ordering::Relaxed);
    let results = calls.join_all().await;
    let granted = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(granted, 1);
    let requests = limits.requests.load(Ordering::Relaxed);
    assert!(requests <= 10, "{requests} requests");
}

#[tokio::test(start_paused = true)]
async fn without_the_shared_store_there_is_no_permit() {
    let (limits, [limit, _]) = shared_limits();
    limits.permits.store(1, Ordering::Relaxed);
    limits.is_away.store(true, Ordering::Relaxed);
    let no_permit = Err(NoPermit::Unavailable("the database is unavailable".into()));
    assert_eq!(limit.acquire(Instant::now() + Duration::from_secs(60)).await, no_permit);
}
