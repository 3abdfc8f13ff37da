//! Known limits: scenarios with a counterexample.

use crate::{
    properties::NO_FOREIGN_ATTRIBUTION,
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
