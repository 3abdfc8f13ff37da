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
mod rule;

use std::collections::BTreeSet;

use properties::{DENIED, ONCE, OWN, STORED, TRUE};
use protocol::{Callbacks, Flaw, KEYS, LookUps, Protocol};
use rule::{A, B, C, Devices, Rules};
use stateright::{Checker, HasDiscoveries, Model};

const OURS: Devices = A | B;

/// Nothing may be relied on.
fn protocol(replicas: usize, calls: [u8; KEYS], strangers: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([OURS; KEYS]),
        replicas,
        calls,
        devices: [OURS, OURS, strangers],
        look_ups: LookUps::MayFail,
        callbacks: Callbacks::AnyTime,
        is_stranger_early: false,
        clock_leaps: false,
        flaw: None,
    }
}

/// Two changes of which the second has some of the first one's devices, or more.
fn overlapping(first: Devices, second: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([first, second]),
        devices: [first, second, 0],
        look_ups: LookUps::Nowhere,
        ..protocol(1, [1, 1], 0)
    }
}

/// A stranger's request for exactly our devices, of which something is heard before ours is sent. The
/// clock may be set back at any time.
fn early_stranger() -> Protocol {
    Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        is_stranger_early: true,
        clock_leaps: true,
        ..protocol(1, [1, 0], OURS)
    }
}

/// A stranger's request for more devices, all called back within the quiet period.
fn superset_in_time() -> Protocol {
    Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        ..protocol(1, [1, 0], OURS | C)
    }
}

/// A stranger's request for more devices, of which ThingSpace's list may lack some.
fn superset_with_an_incomplete_list() -> Protocol {
    Protocol {
        look_ups: LookUps::Incomplete,
        ..protocol(1, [1, 0], OURS | C)
    }
}

fn with(flaw: Flaw, protocol: Protocol) -> Protocol {
    Protocol {
        flaw: Some(flaw),
        ..protocol
    }
}

/// Explores everything.
fn holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps deep",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Explores until one of the properties is broken, and tells how.
fn breaks(broken: &[&'static str], protocol: Protocol) {
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
    holds("one replica", protocol(1, [3, 0], 0));
}

#[test]
fn two_replicas_that_take_over_from_each_other_at_any_time_keep_them() {
    holds("two replicas", protocol(2, [3, 0], 0));
}

#[test]
fn a_second_change_of_the_same_devices_is_never_taken_for_the_first() {
    let protocol = Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        ..protocol(1, [2, 1], 0)
    };
    holds("a second change", protocol);
}

#[test]
fn two_replicas_do_not_take_it_for_the_first_either() {
    let protocol = Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        ..protocol(2, [1, 1], 0)
    };
    holds("a second change, two replicas", protocol);
}

#[test]
fn two_replicas_do_not_take_it_for_the_first_that_was_given_up_either() {
    let name = "a second change, two replicas, at any time";
    holds(name, protocol(2, [1, 1], 0));
}

#[test]
fn a_second_change_is_never_taken_for_the_first_that_was_given_up_whenever_callbacks_come() {
    holds("a second change, at any time", protocol(1, [1, 1], 0));
    let unlisted = Protocol {
        look_ups: LookUps::Nowhere,
        ..protocol(1, [1, 1], 0)
    };
    holds("a second change, at any time, unlisted", unlisted);
}

#[test]
fn a_strangers_request_for_more_devices_is_never_ours_whenever_its_callbacks_and_the_list_come() {
    holds(
        "a stranger with more devices",
        protocol(1, [1, 0], OURS | C),
    );
}

#[test]
fn a_strangers_request_for_more_devices_is_never_ours_without_a_list_while_its_callbacks_are_in_time()
 {
    let protocol = Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    holds("a stranger with more devices, in time", protocol);
}

#[test]
fn a_strangers_request_for_a_part_of_the_devices_is_never_ours() {
    holds("a stranger with one device", protocol(1, [1, 0], A));
}

#[test]
fn a_strangers_request_for_one_of_the_devices_and_another_is_never_ours_once_it_was_listed() {
    holds("a stranger with another device", protocol(1, [1, 0], B | C));
}

#[test]
fn a_list_that_is_empty_or_lacks_devices_proves_nothing() {
    let name = "a stranger with more devices and an incomplete list";
    holds(name, superset_with_an_incomplete_list());
}

#[test]
fn a_late_callback_of_a_closed_change_is_never_another_ones_whose_devices_are_fewer_or_more() {
    holds("a second change of fewer devices", overlapping(OURS, A));
    holds("a second change of more devices", overlapping(A, OURS));
    let listed = Protocol {
        look_ups: LookUps::Incomplete,
        ..overlapping(OURS, A)
    };
    holds("a second change of fewer devices, listed", listed);
}

#[test]
fn results_from_before_a_change_was_sent_are_never_its_although_the_clock_is_set_back() {
    holds("a stranger before a leap of the clock", early_stranger());
}

// === Its limits ===

#[test]
fn a_strangers_request_for_exactly_the_same_devices_cannot_be_told_from_ours() {
    let protocol = Protocol {
        callbacks: Callbacks::InTime,
        ..protocol(1, [1, 0], OURS)
    };
    breaks(&[OWN], protocol);
}

#[test]
fn a_strangers_request_for_more_devices_is_taken_for_ours_when_the_rest_is_late_and_there_is_no_list()
 {
    let protocol = Protocol {
        look_ups: LookUps::Nowhere,
        ..protocol(1, [1, 0], OURS | C)
    };
    breaks(&[OWN], protocol);
}

#[test]
fn a_list_that_lacks_devices_and_is_exactly_our_set_cannot_be_told_from_ours() {
    let protocol = Protocol {
        look_ups: LookUps::AnyIncomplete,
        ..superset_with_an_incomplete_list()
    };
    breaks(&[OWN], protocol);
}

// === What each rule is there for ===

/// The four ways in which a foreign request was attributed to an unknown change: each breaks the
/// model under the old rule, and the same model holds under the rule that replaced it.
#[test]
fn each_old_rule_of_attribution_has_a_counterexample_and_its_replacement_has_none() {
    let cases = [
        (Flaw::QuietPeriodEndsAtARestart, superset_in_time()),
        (
            Flaw::ListAddsToTheCallbacks,
            superset_with_an_incomplete_list(),
        ),
        (Flaw::ClosedWithMoreIsNoRival, overlapping(OURS, A)),
        (Flaw::ComparesClockTimes, early_stranger()),
    ];
    for (old_rule, protocol) in cases {
        println!("{old_rule:?}:");
        breaks(&[OWN], with(old_rule, protocol.clone()));
        holds("without it", protocol);
    }
}

#[test]
fn a_post_that_is_sent_again_after_a_time_out_is_executed_twice() {
    let flaw = Flaw::SendsAgainAfterATimeOut;
    breaks(&[ONCE], with(flaw, protocol(1, [1, 0], 0)));
}

#[test]
fn without_a_look_at_the_key_a_retry_is_executed_twice() {
    breaks(&[ONCE], with(Flaw::LooksAtNoKey, protocol(1, [2, 0], 0)));
}

#[test]
fn a_post_that_leaves_before_its_intent_is_on_record_is_denied_after_a_crash() {
    let flaw = Flaw::SendsBeforeTheIntent;
    breaks(&[DENIED], with(flaw, protocol(1, [1, 0], 0)));
    breaks(&[ONCE], with(flaw, protocol(1, [2, 0], 0)));
}

#[test]
fn a_start_that_takes_what_was_dispatched_for_unsent_sends_it_twice() {
    let flaw = Flaw::TakesSentForUnsentAtTheStart;
    breaks(&[DENIED], with(flaw, protocol(1, [1, 0], 0)));
    breaks(&[ONCE], with(flaw, protocol(1, [2, 0], 0)));
}

#[test]
fn two_replicas_that_go_by_the_state_alone_deny_what_the_other_has_sent_and_send_it_twice() {
    let flaw = Flaw::ChecksOnlyTheState;
    breaks(&[DENIED], with(flaw, protocol(2, [2, 0], 0)));
    breaks(&[ONCE], with(flaw, protocol(2, [3, 0], 0)));
}

#[test]
fn one_replica_alone_may_go_by_the_state() {
    let flaw = Flaw::ChecksOnlyTheState;
    holds(
        "one replica without numbers",
        with(flaw, protocol(1, [3, 0], 0)),
    );
}

#[test]
fn a_part_of_the_devices_binds_a_strangers_request() {
    let flaw = Flaw::TakesAPartForTheWhole;
    breaks(&[OWN], with(flaw, protocol(1, [1, 0], A)));
    breaks(&[TRUE], with(flaw, protocol(1, [1, 0], A)));
}

#[test]
fn a_binding_that_does_not_wait_for_the_list_takes_a_strangers_request_for_more_devices() {
    let flaw = Flaw::BindsWithoutTheList;
    breaks(&[OWN], with(flaw, protocol(1, [1, 0], OURS | C)));
}

#[test]
fn results_that_come_after_their_change_was_given_up_are_the_next_ones_if_that_is_forgotten() {
    let flaw = Flaw::ForgetsWhatWasGivenUp;
    breaks(&[OWN], with(flaw, protocol(1, [1, 1], 0)));
}

#[test]
fn a_binding_that_does_not_wait_takes_a_strangers_request_for_more_devices() {
    let protocol = Protocol {
        look_ups: LookUps::Nowhere,
        callbacks: Callbacks::InTime,
        ..protocol(1, [1, 0], OURS | C)
    };
    breaks(&[OWN], with(Flaw::BindsAtOnce, protocol));
}

#[test]
fn results_from_before_a_change_was_sent_are_another_changes() {
    let protocol = Protocol {
        callbacks: Callbacks::InTime,
        ..protocol(1, [1, 1], 0)
    };
    breaks(
        &[OWN],
        with(Flaw::TakesResultsFromBeforeItWasSent, protocol),
    );
}

#[test]
fn a_callback_that_is_acknowledged_first_can_be_lost() {
    breaks(
        &[STORED],
        with(Flaw::AcknowledgesFirst, protocol(1, [1, 0], 0)),
    );
}
