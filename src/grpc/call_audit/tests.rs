use futures_util::FutureExt as _;
use prost_types::Timestamp;

use super::*;
use crate::{
    audit::testing::{FakeOutput, start},
    grpc::error::Executed,
    operations::testing::esim,
    proto::ChangeState,
};

const METHOD: &str = "thingspace.gateway.v1.GatewayService/ChangeEsimPlan";

/// The audit of a change call whose handler runs.
fn change_call(log: &AuditLog) -> CallAudit {
    let audit = CallAudit::new(log, METHOD, None);
    audit.set_caller(&Caller::local());
    audit.enter_handler();
    audit.set_request(&esim("key", [1]));
    audit
}

fn headers(error: ApiError) -> HeaderMap {
    error.into_response().headers().clone()
}

/// The status of a call whose deadline has passed.
fn deadline_exceeded() -> HeaderMap {
    headers(ApiError::deadline_exceeded().with_executed(Executed::Unknown))
}

#[tokio::test]
async fn the_end_of_a_call_whose_client_left_before_the_claim_has_the_id_of_its_change() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    let id = ChangeId::new(crate::domain::clock::Timestamp::from_micros(1));

    // The client cancels the call.
    let audit = change_call(&log);
    audit.begin().await.unwrap();
    let of_the_dispatch = audit.clone();
    drop(audit);
    of_the_dispatch.set_claimed(id);
    // The deadline passes.
    let audit = change_call(&log);
    audit.begin().await.unwrap();
    let of_the_dispatch = audit.clone();
    audit.finish(&deadline_exceeded());
    drop(audit);
    of_the_dispatch.set_claimed(id);
    // The deadline passes after the claim.
    let audit = change_call(&log);
    audit.begin().await.unwrap();
    audit.clone().set_claimed(id);
    audit.finish(&deadline_exceeded());
    drop(audit);

    log.close().await;
    assert_eq!(output.values("code"), ["CANCELLED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
    assert_eq!(output.values("executed"), ["UNKNOWN"; 3]);
    assert_eq!(output.values("change_id"), [id.to_string(), id.to_string(), id.to_string()]);
}

#[tokio::test]
async fn a_call_without_a_claim_has_one_record_of_its_end() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    let audit = change_call(&log);
    audit.begin().await.unwrap();
    let of_the_dispatch = audit.clone();
    audit.finish(&deadline_exceeded());
    drop((audit, of_the_dispatch));
    log.close().await;
    assert_eq!(output.values("event"), ["log_started", "call_started", "call", "log_stopped"]);
    assert_eq!(output.values("change_id"), [""; 0]);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_begin_is_written_has_one_record_of_a_change_not_sent() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    drop(change_call(&log));
    for status in [None, Some(deadline_exceeded())] {
        // The next line waits.
        let held = output.hold();
        let audit = change_call(&log);
        let mut begin = Box::pin(audit.begin());
        assert!(begin.as_mut().now_or_never().is_none());
        drop(begin);
        if let Some(status) = status {
            audit.finish(&status);
        }
        drop((audit, held));
    }
    log.close().await;
    let expected =
        ["log_started", "call", "call_started", "call", "call_started", "call", "log_stopped"];
    assert_eq!(output.values("event"), expected);
    assert_eq!(output.values("code"), ["CANCELLED", "CANCELLED", "DEADLINE_EXCEEDED"]);
    assert_eq!(output.values("executed"), ["NO"; 3]);
}

#[tokio::test]
async fn a_change_whose_begin_cannot_be_written_has_one_record_with_the_reason() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    // The log has started.
    let first = AuditRecord::new(AuditEvent::Call, log.new_call_id());
    log.record_synced(first).await.unwrap();
    output.fail_syncs(true);
    let audit = change_call(&log);
    let error = audit.begin().await.unwrap_err();
    audit.finish(&headers(error.with_executed(Executed::Unknown)));
    drop(audit);
    output.fail_syncs(false);
    log.close().await;
    // A line whose sync failed may be repeated.
    let of_ends = (output.values("reason"), output.values("executed"));
    let count = of_ends.0.len();
    assert!(count > 0);
    assert_eq!(
        of_ends,
        (vec!["AUDIT_UNAVAILABLE".to_owned(); count], vec!["NO".to_owned(); count])
    );
}

#[test]
fn a_change_is_executed_only_if_thingspace_has_accepted_it() {
    let executed = |state: ChangeState, is_accepted: bool| {
        let accept_time = is_accepted.then(Timestamp::default);
        executed_of(&proto::Change { state: state.into(), accept_time, ..Default::default() })
    };
    for state in [ChangeState::Accepted, ChangeState::Finished, ChangeState::Overdue] {
        assert_eq!(executed(state, true), "YES", "{state:?}");
    }
    assert_eq!(executed(ChangeState::Closed, true), "YES");
    for state in [
        ChangeState::Closed,
        ChangeState::OutcomeUnknown,
        ChangeState::Queued,
        ChangeState::Dispatched,
        ChangeState::Unspecified,
    ] {
        assert_eq!(executed(state, false), "UNKNOWN", "{state:?}");
    }
    for state in [ChangeState::Rejected, ChangeState::NotSent] {
        assert_eq!(executed(state, false), "NO", "{state:?}");
    }
}
