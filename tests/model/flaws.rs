//! Each rule is necessary: without it, a scenario has a counterexample.

use crate::{
    properties::{
        ACKNOWLEDGED_IS_STORED, IN_FLIGHT_IS_SETTLED, NO_DOUBLE_EXECUTION, NO_FOREIGN_ATTRIBUTION,
        NO_POST_OF_OLD_ATTEMPT, NO_SECOND_POST, NOT_SENT_IS_NOT_EXECUTED, RESPONSE_IS_STORED,
        STATE_IS_PROVEN,
    },
    protocol::{CallbackTiming, Flaw, Lookups, Protocol},
    rules::{A, C},
    scenarios::{
        OURS, assert_breaks, assert_holds, early_foreign_request, overlapping, protocol,
        superset_in_time, superset_with_an_incomplete_list, with_flaw,
    },
};

/// Each former rule of attribution has a counterexample. The same scenario holds with its replacement.
#[test]
fn each_old_rule_of_attribution_has_a_counterexample_and_its_replacement_has_none() {
    let cases = [
        (Flaw::EndsQuietPeriodAtRestart, superset_in_time()),
        (Flaw::MergesListWithCallbacks, superset_with_an_incomplete_list()),
        (Flaw::IgnoresLargerClosedRival, overlapping(OURS, A)),
        (Flaw::ComparesClockTimes, early_foreign_request()),
    ];
    for (old_rule, protocol) in cases {
        println!("{old_rule:?}:");
        assert_breaks(&[NO_FOREIGN_ATTRIBUTION], with_flaw(old_rule, protocol.clone()));
        assert_holds("without it", protocol);
    }
}

#[test]
fn a_post_that_is_retried_after_a_timeout_is_executed_twice() {
    let flaw = Flaw::RetriesAfterTimeout;
    assert_breaks(&[NO_DOUBLE_EXECUTION], with_flaw(flaw, protocol(1, [1, 0], 0)));
}

#[test]
fn without_the_key_check_a_retry_is_executed_twice() {
    assert_breaks(&[NO_DOUBLE_EXECUTION], with_flaw(Flaw::SkipsKeyCheck, protocol(1, [2, 0], 0)));
}

#[test]
fn a_post_that_is_sent_before_its_intent_is_stored_is_reported_as_not_sent_after_a_crash() {
    let flaw = Flaw::SendsBeforeIntent;
    assert_breaks(&[NOT_SENT_IS_NOT_EXECUTED], with_flaw(flaw, protocol(1, [1, 0], 0)));
    assert_breaks(&[NO_DOUBLE_EXECUTION], with_flaw(flaw, protocol(1, [2, 0], 0)));
}

#[test]
fn a_start_that_marks_dispatched_changes_as_not_sent_sends_them_twice() {
    let flaw = Flaw::SettlesDispatchedAsNotSent;
    assert_breaks(&[NOT_SENT_IS_NOT_EXECUTED], with_flaw(flaw, protocol(1, [1, 0], 0)));
    assert_breaks(&[NO_DOUBLE_EXECUTION], with_flaw(flaw, protocol(1, [2, 0], 0)));
}

#[test]
fn two_replicas_without_fencing_send_a_change_twice() {
    let flaw = Flaw::SkipsFencing;
    assert_breaks(&[NOT_SENT_IS_NOT_EXECUTED], with_flaw(flaw, protocol(2, [2, 0], 0)));
    for broken in [NO_POST_OF_OLD_ATTEMPT, NO_SECOND_POST, NO_DOUBLE_EXECUTION] {
        assert_breaks(&[broken], with_flaw(flaw, protocol(2, [3, 0], 0)));
    }
}

#[test]
fn without_the_last_check_a_replica_that_was_stopped_sends_a_change_that_is_closed() {
    let flaw = Flaw::SkipsLeaseCheck;
    assert_breaks(&[RESPONSE_IS_STORED], with_flaw(flaw, protocol(2, [1, 0], 0)));
}

#[test]
fn a_change_that_is_settled_while_its_replica_holds_the_lease_is_sent_after_it_is_closed() {
    let flaw = Flaw::SettlesBeforeExpiry;
    assert_breaks(&[RESPONSE_IS_STORED], with_flaw(flaw, protocol(2, [1, 0], 0)));
}

#[test]
fn a_replica_that_settles_dispatched_changes_as_not_sent_lets_two_attempts_send_them() {
    let flaw = Flaw::SettlesDispatchedAsNotSent;
    for broken in [NO_POST_OF_OLD_ATTEMPT, NO_SECOND_POST] {
        assert_breaks(&[broken], with_flaw(flaw, protocol(2, [2, 0], 0)));
    }
}

#[test]
fn a_replica_that_does_not_record_a_failed_check_leaves_the_change_in_flight() {
    let flaw = Flaw::ForgetsUnsentChange;
    assert_breaks(&[IN_FLIGHT_IS_SETTLED], with_flaw(flaw, protocol(2, [1, 0], 0)));
}

#[test]
fn one_replica_needs_no_fencing() {
    let flaw = Flaw::SkipsFencing;
    assert_holds("one replica without fencing", with_flaw(flaw, protocol(1, [3, 0], 0)));
}

#[test]
fn accepting_partial_coverage_attributes_a_foreign_request() {
    let flaw = Flaw::AcceptsPartialCoverage;
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], with_flaw(flaw, protocol(1, [1, 0], A)));
    assert_breaks(&[STATE_IS_PROVEN], with_flaw(flaw, protocol(1, [1, 0], A)));
}

#[test]
fn skipping_the_device_list_attributes_a_foreign_superset_request() {
    let flaw = Flaw::SkipsDeviceList;
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], with_flaw(flaw, protocol(1, [1, 0], OURS | C)));
}

#[test]
fn forgetting_closed_changes_attributes_their_late_results_to_the_next_change() {
    let flaw = Flaw::ForgetsClosedChanges;
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], with_flaw(flaw, protocol(1, [1, 1], 0)));
}

#[test]
fn skipping_the_quiet_period_attributes_a_foreign_superset_request() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], with_flaw(Flaw::SkipsQuietPeriod, protocol));
}

#[test]
fn accepting_results_from_before_dispatch_attributes_another_changes_request() {
    let protocol = Protocol { callback_timing: CallbackTiming::InTime, ..protocol(1, [1, 1], 0) };
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(Flaw::AcceptsResultsFromBeforeDispatch, protocol),
    );
}

#[test]
fn a_callback_that_is_acknowledged_before_it_is_stored_can_be_lost() {
    assert_breaks(
        &[ACKNOWLEDGED_IS_STORED],
        with_flaw(Flaw::AcknowledgesBeforeStoring, protocol(1, [1, 0], 0)),
    );
}
