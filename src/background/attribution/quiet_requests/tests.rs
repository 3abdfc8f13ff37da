use tokio::time::advance;

use super::*;

const QUIET: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(1);

fn request(number: usize) -> RequestId {
    RequestId::parse(format!("r-{number}")).unwrap()
}

fn commit_result(requests: &QuietRequests, number: usize) {
    let unattributed = vec![request(number)];
    let commit = Commit { unattributed, ..Commit::default() };
    requests.before_commit(&commit);
    requests.on_commit(&commit);
}

fn take(requests: &QuietRequests) -> Vec<RequestId> {
    requests.take_quiet(QUIET).0.into_iter().map(|(request, _)| request).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_quiet_when_no_result_arrived_for_the_whole_period() {
    let requests = QuietRequests::default();
    commit_result(&requests, 1);
    advance(QUIET - SHORT).await;
    commit_result(&requests, 1);
    advance(QUIET - SHORT).await;
    assert!(take(&requests).is_empty());
    assert_eq!(requests.time_until_quiet(QUIET), SHORT);
    advance(SHORT).await;
    assert_eq!(take(&requests), [request(1)]);
    assert!(requests.is_still_quiet(&request(1), 1, QUIET));
    commit_result(&requests, 1);
    assert!(!requests.is_still_quiet(&request(1), 1, QUIET));
}

#[tokio::test(start_paused = true)]
async fn following_a_request_again_does_not_restart_its_quiet_period() {
    let requests = QuietRequests::default();
    commit_result(&requests, 1);
    advance(QUIET).await;
    requests.follow(request(1), Instant::now());
    assert_eq!(take(&requests), [request(1)]);
}

#[tokio::test(start_paused = true)]
async fn no_request_is_quiet_while_a_dropped_target_may_be_that_request() {
    let requests = QuietRequests::default();
    commit_result(&requests, 0);
    advance(QUIET).await;
    for number in 1..MAX_FOLLOWED {
        commit_result(&requests, number);
    }
    commit_result(&requests, MAX_FOLLOWED);
    let (quiet, is_sweep_due) = requests.take_quiet(QUIET);
    assert!(is_sweep_due && quiet.len() == 1 && quiet[0].0 == request(0));
    assert!(!requests.is_still_quiet(&request(0), 1, QUIET));
    advance(QUIET).await;
    assert!(requests.is_still_quiet(&request(0), 1, QUIET));
}

#[test]
fn a_request_that_other_replicas_can_touch_is_quiet_once_it_is_judged_again_with_the_same_last_result()
 {
    let requests = QuietRequests::new(true);
    let is_quiet =
        |number, last_result| requests.is_still_quiet(&request(number), last_result, QUIET);
    assert!(!is_quiet(1, 7));
    // Another replica has stored a result.
    assert!(!is_quiet(1, 8));
    assert!(is_quiet(1, 8));
    for other in 2..=MAX_FOLLOWED {
        assert!(!is_quiet(other, 9));
    }
    assert!(is_quiet(1, 8));
    // Beyond the bound, requests are judged once more.
    assert!(!is_quiet(MAX_FOLLOWED + 1, 9));
    assert!(!is_quiet(1, 8));
}
