use futures_util::FutureExt as _;

use super::*;

fn caller(name: &str) -> CallerName {
    CallerName::parse(name).unwrap()
}

#[tokio::test]
async fn a_caller_waits_only_for_its_own_turns_and_in_order() {
    let turns = CallerTurns::new(2);
    let (greedy, other) = (caller("greedy"), caller("other"));
    let first = turns.acquire(&greedy).await;
    let _second = turns.acquire(&greedy).await;
    let mut third = Box::pin(turns.acquire(&greedy));
    let mut fourth = Box::pin(turns.acquire(&greedy));
    assert!((&mut third).now_or_never().is_none());
    assert!((&mut fourth).now_or_never().is_none());
    assert!(turns.acquire(&other).now_or_never().is_some());
    drop(first);
    assert!((&mut fourth).now_or_never().is_none());
    assert!((&mut third).now_or_never().is_some());
}

#[tokio::test]
async fn idle_callers_are_forgotten_and_busy_ones_are_not() {
    let turns = CallerTurns::new(1);
    let busy = caller("busy");
    let _turn = turns.acquire(&busy).await;
    for number in 0..100 {
        turns.acquire(&caller(&format!("caller-{number}"))).await;
        assert!(turns.callers.lock().len() <= 2);
    }
    assert!(turns.acquire(&busy).now_or_never().is_none());
}
