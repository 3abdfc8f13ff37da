//! Scenarios of the model, and their exploration.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    protocol::{CallbackTiming, Flaw, KEYS, Lookups, Protocol},
    rules::{A, B, C, Devices, Rules},
};

pub const OURS: Devices = A | B;

/// A scenario without assumptions about callbacks and lookups.
pub fn protocol(replicas: usize, calls: [u8; KEYS], foreign: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([OURS; KEYS]),
        replicas,
        calls,
        devices: [OURS, OURS, foreign],
        lookups: Lookups::MayFail,
        callback_timing: CallbackTiming::AnyTime,
        is_sending_in_time: true,
        is_foreign_request_early: false,
        clock_can_be_set_back: false,
        flaw: None,
    }
}

/// Two changes. The second has a part or a superset of the first one's devices.
pub fn overlapping(first: Devices, second: Devices) -> Protocol {
    Protocol {
        rules: Rules::new([first, second]),
        devices: [first, second, 0],
        lookups: Lookups::Unsupported,
        ..protocol(1, [1, 1], 0)
    }
}

/// A foreign request for exactly our devices, with a callback before our change is sent. The clock can be
/// set back at any time.
pub fn early_foreign_request() -> Protocol {
    Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        is_foreign_request_early: true,
        clock_can_be_set_back: true,
        ..protocol(1, [1, 0], OURS)
    }
}

/// A foreign request for more devices, with all callbacks within the quiet period.
pub fn superset_in_time() -> Protocol {
    Protocol {
        lookups: Lookups::Unsupported,
        callback_timing: CallbackTiming::InTime,
        ..protocol(1, [1, 0], OURS | C)
    }
}

/// A foreign request for more devices. ThingSpace's list can lack some of them.
pub fn superset_with_an_incomplete_list() -> Protocol {
    Protocol { lookups: Lookups::Incomplete, ..protocol(1, [1, 0], OURS | C) }
}

pub fn with_flaw(flaw: Flaw, protocol: Protocol) -> Protocol {
    Protocol { flaw: Some(flaw), ..protocol }
}

/// Explores all states. Fails if a property does not hold.
pub fn assert_holds(name: &str, protocol: Protocol) {
    let checker = protocol.checker().spawn_bfs().join();
    println!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Explores until one of these properties is violated, and prints the counterexample.
pub fn assert_breaks(broken: &[&'static str], protocol: Protocol) {
    let finish = HasDiscoveries::AnyOf(BTreeSet::from_iter(broken.iter().copied()));
    let checker = protocol.checker().finish_when(finish).spawn_bfs().join();
    let path = broken.iter().find_map(|name| checker.discovery(name));
    let path = path.expect("a counterexample");
    println!("after {} states:", checker.unique_state_count());
    for action in path.into_actions() {
        println!("  {action:?}");
    }
}
