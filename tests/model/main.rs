//! The submit protocol as a small model, of which every order of events is explored.
//!
//! **Modelled.** One journal, atomic and durable, with its claim (key, devices, intent in one
//! transaction) and its steps. One or two replicas that can crash between any two of their steps and
//! start again; one that only stalls is settled by the other as if it had crashed, at any time, and
//! goes on later. Clients that call again with their key, at any replica and at any time, and a second
//! change of the same devices with another key. ThingSpace, which executes a POST, refuses it, says
//! that it did not execute it, or never gets it, sooner or later than anybody waits; its answer may be
//! lost; its callbacks come before the answer, much later, again, or not at all. A stranger's request
//! for some of the same devices. Look-ups that are answered or not, with lists that may lack devices.
//! Deadlines that pass at any time. A clock that is set back.
//!
//! **The product's own code** decides which step a state allows (`ChangeState::after`, `is_in_flight`,
//! `is_under_way`), which device a result names (`find_device`), and which change a request is
//! (`domain::attribution`). The order of the steps in `dispatch/` and the journal's claim are written again
//! here: they are async code and SQL.
//!
//! **Two replicas** are what the design wants and the embedded journal does not have. Each claim has a
//! number here, and the journal takes a sender's step only under its own; the state alone does not do.
//!
//! **What attribution relies on** is in [`protocol::Callbacks`] and [`protocol::LookUps`]; the tests of
//! the limits show what happens beyond it.
//!
//! **Not modelled.** Content that differs under one key, retention, throttling and log-in before
//! DISPATCHED, the results' own outcomes and which of two holds, 5G's device list, an account or a
//! service that does not fit, a list with devices of another request, a journal that lags behind another copy.
//! A callback that comes again changes nothing that is stored, so it is no event here.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that meets the unexpected fails"
)]

mod actions;
mod effects;
mod properties;
mod protocol;
mod rules;

use std::collections::BTreeSet;

use properties::{
    ACKNOWLEDGED_IS_STORED, NO_DOUBLE_EXECUTION, NO_FOREIGN_ATTRIBUTION, NOT_SENT_IS_NOT_EXECUTED,
    STATE_IS_PROVEN,
};
use protocol::{CallbackTiming, Flaw, KEYS, Lookups, Protocol};
use rules::{A, B, C, Devices, Rules};
use stateright::{Checker, HasDiscoveries, Model};

const OURS: Devices = A | B;

/// Nothing may be relied on.
fn protocol(replicas: usize, calls: [u8; KEYS], strangers: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([OURS; KEYS]),
        replicas,
        calls,
        devices: [OURS, OURS, strangers],
        lookups: Lookups::MayFail,
        callback_timing: CallbackTiming::AnyTime,
        is_foreign_request_early: false,
        clock_leaps: false,
        flaw: None,
    }
}

/// Two changes of which the second has some of the first one's devices, or more.
fn overlapping(first: Devices, second: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([first, second]),
        devices: [first, second, 0],
        lookups: Lookups::Unsupported,
        ..protocol(1, [1, 1], 0)
    }
}

/// A stranger's request for exactly our devices, of which something is heard before ours is sent. The
/// clock may be set back at any time.
fn early_foreign_request() -> Protocol {
    Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        is_foreign_request_early: true,
        clock_leaps: true,
        ..protocol(1, [1, 0], OURS)
    }
}

/// A stranger's request for more devices, all called back within the quiet period.
fn superset_in_time() -> Protocol {
    Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    }
}

/// A stranger's request for more devices, of which ThingSpace's list may lack some.
fn superset_with_an_incomplete_list() -> Protocol {
    Protocol {
        lookups: Lookups::Incomplete,
        ..protocol(1, [1, 0], OURS | C)
    }
}

fn with_flaw(flaw: Flaw, protocol: Protocol) -> Protocol {
    Protocol {
        flaw: Some(flaw),
        ..protocol
    }
}

/// Explores everything.
fn assert_holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps deep",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Explores until one of the properties is broken, and tells how.
fn assert_breaks(broken: &[&'static str], protocol: Protocol) {
    let finish = HasDiscoveries::AnyOf(BTreeSet::from_iter(broken.iter().copied()));
    let checker = protocol.checker().finish_when(finish).spawn_bfs().join();
    let path = broken.iter().find_map(|name| checker.discovery(name));
    let path = path.expect("nothing was broken");
    println!("after {} states:", checker.unique_state_count());
    for action in path.into_actions() {
        println!("  {action:?}");
    }
}

// === What holds ===

#[test]
fn one_replica_that_may_crash_at_any_step_keeps_its_promises_whenever_callbacks_come() {
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
    let unlisted = Protocol {
        lookups: Lookups::Unsupported,
        ..protocol(1, [1, 1], 0)
    };
    assert_holds("a second change, at any time, unlisted", unlisted);
}

#[test]
fn a_foreign_superset_request_is_never_attributed_with_callbacks_and_list_at_any_time() {
    assert_holds(
        "a stranger with more devices",
        protocol(1, [1, 0], OURS | C),
    );
}

#[test]
fn a_foreign_superset_request_is_never_attributed_without_a_list_if_callbacks_are_in_time() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    assert_holds("a stranger with more devices, in time", protocol);
}

#[test]
fn a_foreign_subset_request_is_never_attributed() {
    assert_holds("a stranger with one device", protocol(1, [1, 0], A));
}

#[test]
fn a_foreign_overlapping_request_is_never_attributed_once_listed() {
    assert_holds("a stranger with another device", protocol(1, [1, 0], B | C));
}

#[test]
fn a_list_that_is_empty_or_lacks_devices_proves_nothing() {
    let name = "a stranger with more devices and an incomplete list";
    assert_holds(name, superset_with_an_incomplete_list());
}

#[test]
fn a_late_callback_of_a_closed_change_is_never_another_ones_whose_devices_are_fewer_or_more() {
    assert_holds("a second change of fewer devices", overlapping(OURS, A));
    assert_holds("a second change of more devices", overlapping(A, OURS));
    let listed = Protocol {
        lookups: Lookups::Incomplete,
        ..overlapping(OURS, A)
    };
    assert_holds("a second change of fewer devices, listed", listed);
}

#[test]
fn results_from_before_a_change_was_sent_are_never_its_although_the_clock_is_set_back() {
    assert_holds(
        "a stranger before a leap of the clock",
        early_foreign_request(),
    );
}

// === Its limits ===

#[test]
fn limit_a_foreign_request_for_exactly_the_same_devices_is_attributed() {
    let protocol = Protocol {
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS)
    };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

#[test]
fn limit_a_foreign_superset_request_is_attributed_if_callbacks_are_late_and_there_is_no_list() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        ..protocol(1, [1, 0], OURS | C)
    };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

#[test]
fn limit_a_foreign_request_with_an_incomplete_list_of_exactly_our_devices_is_attributed() {
    let protocol = Protocol {
        lookups: Lookups::AnyIncomplete,
        ..superset_with_an_incomplete_list()
    };
    assert_breaks(&[NO_FOREIGN_ATTRIBUTION], protocol);
}

// === What each rule is there for ===

/// The four ways in which a foreign request was attributed to an unknown change: each breaks the
/// model under the old rule, and the same model holds under the rule that replaced it.
#[test]
fn each_old_rule_of_attribution_has_a_counterexample_and_its_replacement_has_none() {
    let cases = [
        (Flaw::EndsQuietPeriodAtRestart, superset_in_time()),
        (
            Flaw::MergesListWithCallbacks,
            superset_with_an_incomplete_list(),
        ),
        (Flaw::IgnoresLargerClosedRival, overlapping(OURS, A)),
        (Flaw::ComparesClockTimes, early_foreign_request()),
    ];
    for (old_rule, protocol) in cases {
        println!("{old_rule:?}:");
        assert_breaks(
            &[NO_FOREIGN_ATTRIBUTION],
            with_flaw(old_rule, protocol.clone()),
        );
        assert_holds("without it", protocol);
    }
}

#[test]
fn a_post_that_is_sent_again_after_a_time_out_is_executed_twice() {
    let flaw = Flaw::RetriesAfterTimeout;
    assert_breaks(
        &[NO_DOUBLE_EXECUTION],
        with_flaw(flaw, protocol(1, [1, 0], 0)),
    );
}

#[test]
fn without_the_key_check_a_retry_is_executed_twice() {
    assert_breaks(
        &[NO_DOUBLE_EXECUTION],
        with_flaw(Flaw::SkipsKeyCheck, protocol(1, [2, 0], 0)),
    );
}

#[test]
fn a_post_that_leaves_before_its_intent_is_on_record_is_denied_after_a_crash() {
    let flaw = Flaw::SendsBeforeIntent;
    assert_breaks(
        &[NOT_SENT_IS_NOT_EXECUTED],
        with_flaw(flaw, protocol(1, [1, 0], 0)),
    );
    assert_breaks(
        &[NO_DOUBLE_EXECUTION],
        with_flaw(flaw, protocol(1, [2, 0], 0)),
    );
}

#[test]
fn a_start_that_takes_what_was_dispatched_for_unsent_sends_it_twice() {
    let flaw = Flaw::MarksDispatchedNotSentAtStart;
    assert_breaks(
        &[NOT_SENT_IS_NOT_EXECUTED],
        with_flaw(flaw, protocol(1, [1, 0], 0)),
    );
    assert_breaks(
        &[NO_DOUBLE_EXECUTION],
        with_flaw(flaw, protocol(1, [2, 0], 0)),
    );
}

#[test]
fn two_replicas_without_fencing_execute_a_change_twice() {
    let flaw = Flaw::IgnoresFence;
    assert_breaks(
        &[NOT_SENT_IS_NOT_EXECUTED],
        with_flaw(flaw, protocol(2, [2, 0], 0)),
    );
    assert_breaks(
        &[NO_DOUBLE_EXECUTION],
        with_flaw(flaw, protocol(2, [3, 0], 0)),
    );
}

#[test]
fn one_replica_needs_no_fencing() {
    let flaw = Flaw::IgnoresFence;
    assert_holds(
        "one replica without numbers",
        with_flaw(flaw, protocol(1, [3, 0], 0)),
    );
}

#[test]
fn accepting_partial_coverage_attributes_a_foreign_request() {
    let flaw = Flaw::AcceptsPartialCoverage;
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(flaw, protocol(1, [1, 0], A)),
    );
    assert_breaks(&[STATE_IS_PROVEN], with_flaw(flaw, protocol(1, [1, 0], A)));
}

#[test]
fn skipping_the_device_list_attributes_a_foreign_superset_request() {
    let flaw = Flaw::SkipsDeviceList;
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(flaw, protocol(1, [1, 0], OURS | C)),
    );
}

#[test]
fn forgetting_closed_changes_attributes_their_late_results_to_the_next_change() {
    let flaw = Flaw::ForgetsClosedChanges;
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(flaw, protocol(1, [1, 1], 0)),
    );
}

#[test]
fn skipping_the_quiet_period_attributes_a_foreign_superset_request() {
    let protocol = Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(Flaw::SkipsQuietPeriod, protocol),
    );
}

#[test]
fn accepting_results_from_before_dispatch_attributes_another_changes_request() {
    let protocol = Protocol {
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 1], 0)
    };
    assert_breaks(
        &[NO_FOREIGN_ATTRIBUTION],
        with_flaw(Flaw::AcceptsResultsFromBeforeDispatch, protocol),
    );
}

#[test]
fn a_callback_that_is_acknowledged_first_can_be_lost() {
    assert_breaks(
        &[ACKNOWLEDGED_IS_STORED],
        with_flaw(Flaw::AcknowledgesBeforeStoring, protocol(1, [1, 0], 0)),
    );
}
