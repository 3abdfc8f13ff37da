//! Scenarios in which all properties hold.

use crate::{
    protocol::{CallbackTiming, Lookups, Protocol},
    rules::{A, B, C},
    scenarios::{
        OURS, assert_holds, early_foreign_request, overlapping, protocol,
        superset_with_an_incomplete_list,
    },
};

#[test]
fn one_replica_that_crashes_at_any_time_keeps_all_properties() {
    assert_holds("one replica", protocol(1, [3, 0], 0));
}

#[test]
fn two_replicas_that_take_over_at_any_time_keep_all_properties() {
    assert_holds("two replicas", protocol(2, [3, 0], 0));
}

#[test]
fn a_request_of_a_second_change_is_never_attributed_to_the_first() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [2, 1], 0)
    };
    assert_holds("a second change", protocol);
}

#[test]
fn two_replicas_never_attribute_a_second_changes_request_to_the_first() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(2, [1, 1], 0)
    };
    assert_holds("a second change, two replicas", protocol);
}

#[test]
fn two_replicas_never_attribute_a_second_changes_request_to_a_closed_first() {
    let name = "a second change, two replicas, at any time";
    assert_holds(name, protocol(2, [1, 1], 0));
}

#[test]
fn a_request_of_a_second_change_is_never_attributed_to_a_closed_first_with_callbacks_at_any_time() {
    assert_holds("a second change, at any time", protocol(1, [1, 1], 0));
    let unlisted = Protocol { lookups: Lookups::Unsupported, ..protocol(1, [1, 1], 0) };
    assert_holds("a second change, at any time, unlisted", unlisted);
}

#[test]
fn a_foreign_superset_request_is_never_attributed_with_callbacks_and_list_at_any_time() {
    assert_holds("a foreign request with more devices", protocol(1, [1, 0], OURS | C));
}

#[test]
fn a_foreign_superset_request_is_never_attributed_without_a_list_if_callbacks_are_in_time() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    assert_holds("a foreign request with more devices, in time", protocol);
}

#[test]
fn a_foreign_subset_request_is_never_attributed() {
    assert_holds("a foreign request with one device", protocol(1, [1, 0], A));
}

#[test]
fn a_foreign_overlapping_request_is_never_attributed_once_listed() {
    assert_holds("a foreign request with another device", protocol(1, [1, 0], B | C));
}

#[test]
fn a_list_that_is_empty_or_lacks_devices_proves_nothing() {
    let name = "a foreign request with more devices and an incomplete list";
    assert_holds(name, superset_with_an_incomplete_list());
}

#[test]
fn a_late_callback_of_a_closed_change_is_never_attributed_to_a_change_of_fewer_or_more_devices() {
    assert_holds("a second change of fewer devices", overlapping(OURS, A));
    assert_holds("a second change of more devices", overlapping(A, OURS));
    let listed = Protocol { lookups: Lookups::Incomplete, ..overlapping(OURS, A) };
    assert_holds("a second change of fewer devices, listed", listed);
}

#[test]
fn results_from_before_the_dispatch_are_never_attributed_even_if_the_clock_is_set_back() {
    assert_holds("a foreign request before the clock is set back", early_foreign_request());
}
