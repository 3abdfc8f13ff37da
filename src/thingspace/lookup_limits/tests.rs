use std::iter::repeat_with;

use tokio::time::advance;

use super::*;
use crate::thingspace::shared::testing::CountingRateLimits;

fn limits(per_minute: u32) -> LookupLimits {
    LookupLimits::new(NonZeroU32::new(per_minute).unwrap(), None)
}

fn caller(name: &str) -> CallerName {
    CallerName::parse(name).unwrap()
}

/// Takes permits until there are none, at most 1,000. Returns their number.
async fn take_all(limits: &LookupLimits, caller: Option<&CallerName>) -> usize {
    let mut taken = 0;
    while taken < 1_000 && limits.acquire(LookupOrigin::Client(caller)).await.is_ok() {
        taken += 1;
    }
    taken
}

async fn take_for_gateway(limits: &LookupLimits) -> bool {
    limits.acquire(LookupOrigin::Gateway(Instant::now())).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn clients_that_repeat_lookups_leave_half_of_the_rate_to_the_gateway() {
    let limits = limits(60);
    assert_eq!(take_all(&limits, None).await, 30);
    for _ in 0..30 {
        assert!(take_for_gateway(&limits).await);
    }
    // At this rate, the client takes a permit every two seconds, and one is left for the gateway.
    for _ in 0..60 {
        advance(Duration::from_secs(2)).await;
        assert_eq!(take_all(&limits, None).await, 1);
        assert!(take_for_gateway(&limits).await);
        assert!(!take_for_gateway(&limits).await);
    }
}

#[tokio::test(start_paused = true)]
async fn one_caller_leaves_half_of_the_part_of_the_clients_to_the_others() {
    let limits = limits(60);
    let (greedy, other) = (caller("greedy"), caller("other"));
    assert_eq!(take_all(&limits, Some(&greedy)).await, 15);
    assert_eq!(take_all(&limits, Some(&other)).await, 15);
    assert_eq!(take_all(&limits, Some(&caller("third"))).await, 0);
    advance(Duration::from_secs(60)).await;
    // One more: the third caller gave its first permit back.
    assert_eq!(take_all(&limits, Some(&caller("third"))).await, 16);
}

#[tokio::test(start_paused = true)]
async fn every_part_has_at_least_one_lookup_a_minute() {
    let limits = limits(1);
    assert_eq!(take_all(&limits, Some(&caller("only"))).await, 1);
    advance(Duration::from_secs(61)).await;
    assert!(take_for_gateway(&limits).await);
}

#[tokio::test(start_paused = true)]
async fn replicas_share_the_parts() {
    let shared = Arc::new(CountingRateLimits::default());
    let per_minute = NonZeroU32::new(60).unwrap();
    let mut replicas = repeat_with(|| LookupLimits::new(per_minute, Some(shared.clone())));
    let (a, b) = (replicas.next().unwrap(), replicas.next().unwrap());
    let greedy = caller("greedy");
    assert_eq!(take_all(&a, Some(&greedy)).await, 15);
    assert_eq!(take_all(&b, Some(&greedy)).await, 0);
    assert_eq!(take_all(&b, Some(&caller("other"))).await, 15);
    assert_eq!(take_all(&a, None).await, 0);
    let requests = shared.requests();
    assert_eq!(take_all(&a, Some(&greedy)).await, 0);
    assert_eq!(shared.requests(), requests, "a known delay causes no request to the database");
    assert!(take_for_gateway(&b).await);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_remembered_callers_is_bounded() {
    let limits = limits(100_000);
    for number in 0..MAX_CALLERS * 2 {
        let name = caller(&format!("caller-{number}"));
        limits.acquire(LookupOrigin::Client(Some(&name))).await.unwrap();
        assert!(limits.of_callers.lock().len() <= MAX_CALLERS);
    }
}
