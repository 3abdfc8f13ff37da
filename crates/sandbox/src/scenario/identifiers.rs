//! The identifiers that select scenarios.
//!
//! An identifier consists of a reserved prefix, the two digits of a scenario, and a serial number.
//! The prefixes end in a digit that test data which counts up from 0 does not reach, so that it
//! selects no scenario. There is no prefix of IMEIs: real IMEIs begin with the same digits.

use serde::Serialize;

use crate::{
    faults::Fault,
    identifiers::{DeviceId, DeviceIds},
    operations::operation::Operation,
    scenario::table::{SCENARIOS, Scenario},
};

/// Number of serials that preloaded devices have, for each scenario and kind.
const PRELOADED_SERIALS: u32 = 16;

pub(crate) struct ReservedPrefix {
    pub(crate) kind: &'static str,
    prefix: &'static str,
    /// Length of the identifier.
    length: usize,
}

/// The prefix of a scenario's identifiers of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct IdentifierPrefix {
    /// Kind of the identifier.
    pub kind: &'static str,
    /// First digits of the identifier.
    pub prefix: String,
    /// Number of digits that follow: hexadecimal for a MEID, otherwise decimal.
    pub serial_digits: usize,
}

/// The prefixes, in the order in which they decide. An ICCID precedes its EID, which may have
/// several profiles. A MEID precedes the MDN of its line.
pub(crate) const RESERVED_PREFIXES: [ReservedPrefix; 4] = [
    ReservedPrefix { kind: "iccid", prefix: "99949", length: 20 },
    ReservedPrefix { kind: "eid", prefix: "999", length: 32 },
    ReservedPrefix { kind: "meid", prefix: "FF00000F", length: 14 },
    ReservedPrefix { kind: "mdn", prefix: "5559", length: 10 },
];

/// A scenario, and the identifier that selects it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScenarioMatch<'d> {
    pub(crate) scenario: &'static Scenario,
    pub(crate) identifier: &'d str,
}

/// Returns the scenario that a device selects in an operation.
pub(crate) fn match_device<'d>(
    operation: &Operation,
    device: &'d [DeviceId],
) -> Option<ScenarioMatch<'d>> {
    scenarios_of(device).find(|hit| hit.scenario.applies_to(operation))
}

/// Returns the scenarios of a request's devices, in the order of the devices.
pub(crate) fn match_devices<'d>(
    operation: &Operation,
    devices: &'d [DeviceIds],
) -> Vec<ScenarioMatch<'d>> {
    devices.iter().filter_map(|device| match_device(operation, device)).collect()
}

/// True if the scenario of a device, in any operation, fails with a fault.
pub(crate) fn fails_with(device: &[DeviceId], fault: &Fault) -> bool {
    let outcome = scenarios_of(device).next().and_then(|hit| hit.scenario.device_outcome());
    outcome.and_then(|outcome| outcome.fault) == Some(fault)
}

/// Returns the scenarios that a device selects in any operation, the deciding one first.
fn scenarios_of(device: &[DeviceId]) -> impl Iterator<Item = ScenarioMatch<'_>> {
    RESERVED_PREFIXES
        .iter()
        .filter_map(|reserved| device.iter().find_map(|id| reserved.match_identifier(id)))
}

/// Returns devices that are on every plan before their first change: the first serials of each
/// scenario that requires it. The device list contains them from the start, so it cannot contain
/// all serials.
pub(crate) fn preloaded_devices() -> impl Iterator<Item = DeviceId> {
    let on_plan = |scenario: &&Scenario| {
        scenario.device_outcome().is_some_and(|outcome| outcome.on_plan_before)
    };
    let kinds = RESERVED_PREFIXES.iter().filter(|reserved| reserved.kind != "eid");
    kinds
        .flat_map(move |reserved| {
            let scenarios = SCENARIOS.iter().filter(on_plan);
            scenarios.map(|scenario| reserved.of_scenario(scenario.number))
        })
        .flat_map(|prefix| (0..PRELOADED_SERIALS).map(move |serial| prefix.with_serial(serial)))
}

impl ReservedPrefix {
    /// Returns the scenario of an identifier. An MSISDN is an MDN with a country code.
    fn match_identifier<'d>(&self, one: &'d DeviceId) -> Option<ScenarioMatch<'d>> {
        let id: &'d str = if one.has_kind("msisdn") && self.kind == "mdn" {
            one.id.strip_prefix('1')?
        } else if one.has_kind(self.kind) {
            &one.id
        } else {
            return None;
        };
        let (prefix, rest) = id.split_at_checked(self.prefix.len())?;
        if !prefix.eq_ignore_ascii_case(self.prefix) {
            return None;
        }
        let number: u8 = rest.get(..2)?.parse().ok()?;
        let scenario = SCENARIOS.iter().find(|one| one.number == number)?;
        Some(ScenarioMatch { scenario, identifier: id })
    }

    pub(crate) fn of_scenario(&self, number: u8) -> IdentifierPrefix {
        let prefix = format!("{}{number:02}", self.prefix);
        let serial_digits = self.length.saturating_sub(prefix.len());
        IdentifierPrefix { kind: self.kind, prefix, serial_digits }
    }
}

impl IdentifierPrefix {
    fn with_serial(&self, serial: u32) -> DeviceId {
        let Self { kind, prefix, serial_digits: digits } = self;
        let id = match *kind {
            "meid" => format!("{prefix}{serial:0digits$X}"),
            _ => format!("{prefix}{serial:0digits$}"),
        };
        DeviceId::new(kind, &id)
    }
}
