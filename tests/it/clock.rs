//! A wrong system clock, at the start and while the gateway runs.

use thingspace_gateway::proto::{Change, ChangeState};

use crate::support::{
    env::TestEnv,
    gateway::GatewayExit,
    requests::{esim, until_caught_up, watch_request},
    wait::eventually,
};

/// Enough calls to let each background job run meanwhile.
const CALLS: usize = 300;

/// Makes one finished change, one without a response, and one without results. Returns the first.
async fn make_changes(env: &TestEnv) -> Change {
    let finished = env.change(esim("finished", [1])).await;
    env.deliver_esim(&finished.request_ids[0], [1]).await;
    env.change_with_lost_response(esim("unknown", [2])).await;
    env.change(esim("accepted", [3])).await;
    finished
}

/// Repeats the calls of all keys many times.
async fn repeat_calls(env: &TestEnv) {
    for _ in 0..CALLS {
        for (key, number) in [("finished", 1), ("unknown", 2), ("accepted", 3)] {
            env.change(esim(key, [number])).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_clock_401_days_ahead_sends_no_key_again_and_closes_nothing() {
    let (mut env, disk) = TestEnv::start_with_disk(|setup| setup).await;
    let finished = make_changes(&env).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    for days in [401, -401, 0] {
        disk.set_clock_ahead(days);
        env.start_again().await;
        repeat_calls(&env).await;
        assert_eq!(env.thingspace.posts(), 3, "{days} days ahead");
        assert_eq!(env.state("unknown").await, ChangeState::OutcomeUnknown);
        let results = until_caught_up(watch_request(&finished.request_ids[0]));
        assert_eq!(env.record(results).await.results().len(), 1);
        let GatewayExit { code, log } = env.gateway.terminate().await;
        assert_eq!(code, Some(0));
        let warned = log.contains("the system clock is ahead of the time stored in the journal");
        // The corrected clock is 401 days ahead of the last stored time.
        assert_eq!(warned, days >= 0, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_jump_at_runtime_removes_and_closes_nothing() {
    // The deadlines are checked every second.
    let (env, disk) =
        TestEnv::start_with_disk(|setup| setup.set("changes.overdue_after", "1s")).await;
    make_changes(&env).await;
    let overdue = async |key: &str| {
        let is_overdue = async || env.state(key).await == ChangeState::Overdue;
        eventually("the change is overdue", is_overdue).await;
    };
    overdue("accepted").await;

    disk.set_clock_ahead(401);
    // The next check of the deadlines finds a new change overdue.
    env.change(esim("later", [4])).await;
    overdue("later").await;
    repeat_calls(&env).await;
    assert_eq!(env.thingspace.posts(), 4);
    assert_eq!(env.state("accepted").await, ChangeState::Overdue);
    assert_eq!(env.state("unknown").await, ChangeState::OutcomeUnknown);
    assert_eq!(env.state("finished").await, ChangeState::Finished);
}
