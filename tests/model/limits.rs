//! Known limits: scenarios with a counterexample.

use crate::{
    properties::{NO_FOREIGN_ATTRIBUTION, RESPONSE_IS_STORED},
    protocol::{CallbackTiming, Lookups, Protocol},
    rules::C,
    scenarios::{OURS, assert_breaks, protocol, superset_with_an_incomplete_list},
};

#[test]
fn limit_a_foreign_request_for_exactly_the_same_devices_is_attributed() {
    let protocol =
        Protocol { callback_timing: CallbackTiming::InTime, ..protocol(1, [1, 0], OURS) };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

#[test]
fn limit_a_foreign_superset_request_is_attributed_if_callbacks_are_late_and_there_is_no_list() {
    let protocol = Protocol { lookups: Lookups::Unsupported, ..protocol(1, [1, 0], OURS | C) };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

#[test]
fn limit_a_foreign_request_with_an_incomplete_list_of_exactly_our_devices_is_attributed() {
    let protocol =
        Protocol { lookups: Lookups::AnyIncomplete, ..superset_with_an_incomplete_list() };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

#[test]
fn limit_a_replica_that_is_stopped_after_its_last_check_until_the_change_is_closed_sends_it() {
    let protocol = Protocol { is_sending_in_time: false, ..protocol(2, [1, 0], 0) };
    assert_breaks(&[RESPONSE_IS_STORED], protocol);
}
