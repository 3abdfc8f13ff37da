//! Scenarios: situations that an identifier of a device makes happen, as a
//! payment provider's test cards do.
//!
//! A scenario's identifier is a prefix that is reserved for the sandbox, the
//! scenario's two digits, and a serial. The prefixes end in a digit that test
//! data which counts up from 0 never reaches, so that nobody meets a scenario by
//! accident; no IMEI is one, because real ones begin with the same digits. The
//! table itself is in `scenarios.rs`.

mod table;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::device_outcome::DeviceOutcome;
use crate::identifiers::{DeviceId, DeviceIds};
use crate::json_body::OperationKind;
use crate::request_outcome::{NotExecutedCause, ResponseKind};
use crate::scenario::table::SCENARIOS;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Two digits of the identifier, and never another scenario's.
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    /// What happens, for people.
    pub(crate) description: &'static str,
    pub(crate) applies_to: AppliesTo,
    pub(crate) effect: ScenarioEffect,
}

/// The changes that know a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppliesTo {
    Both,
    FiveGBi,
}

/// What a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScenarioEffect {
    /// The one device, and how it is told.
    Device(DeviceOutcome),
    /// The whole request, which is not executed.
    NotExecuted(NotExecutedCause),
    /// The answer to the whole request, which is executed.
    Response(ResponseKind),
    /// The order in which the devices of the whole request are told.
    ReversedOrder,
}

/// A kind of identifier and what a scenario's begins with, before its number.
struct ReservedPrefix {
    kind: &'static str,
    prefix: &'static str,
    /// Digits of the whole identifier.
    length: usize,
}

/// In the order in which they decide: an EID may hold several profiles, and
/// an ICCID is one of them; a MEID is the device, an MDN only its line.
const RESERVED_PREFIXES: [ReservedPrefix; 4] = [
    ReservedPrefix {
        kind: "iccid",
        prefix: "99949",
        length: 20,
    },
    ReservedPrefix {
        kind: "eid",
        prefix: "999",
        length: 32,
    },
    ReservedPrefix {
        kind: "meid",
        prefix: "FF00000F",
        length: 14,
    },
    ReservedPrefix {
        kind: "mdn",
        prefix: "5559",
        length: 10,
    },
];

/// A scenario, and the identifier that asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScenarioMatch<'d> {
    pub(crate) scenario: &'static Scenario,
    pub(crate) identifier: &'d str,
}

/// The scenario of a device, if one of its identifiers asks for one.
pub(crate) fn match_device<'d>(
    kind: OperationKind,
    device: &'d [DeviceId],
) -> Option<ScenarioMatch<'d>> {
    RESERVED_PREFIXES.iter().find_map(|reserved| {
        device
            .iter()
            .find_map(|one| reserved.match_identifier(one))
            .filter(|hit| hit.scenario.applies_to(kind))
    })
}

/// The scenarios of a request's devices, in the order of the devices.
pub(crate) fn match_devices(kind: OperationKind, devices: &[DeviceIds]) -> Vec<ScenarioMatch<'_>> {
    devices
        .iter()
        .filter_map(|device| match_device(kind, device))
        .collect()
}

/// Serials of the devices that are there before anybody asks.
const RESIDENTS: u32 = 16;

/// The 5G devices that are on whatever plan they are asked for, and were before: the first serials of each
/// scenario that says so. They have to be in a list that is read before the change as well, and no list
/// could hold all serials.
pub(crate) fn preloaded_devices() -> impl Iterator<Item = DeviceId> {
    let kinds = RESERVED_PREFIXES
        .iter()
        .filter(|one| !matches!(one.kind, "iccid" | "eid"));
    kinds.flat_map(|reserved| {
        let on_plan = |scenario: &&Scenario| {
            scenario
                .device_outcome()
                .is_some_and(|fate| fate.on_plan_before)
        };
        let scenarios = SCENARIOS.iter().filter(on_plan);
        scenarios.flat_map(move |scenario| {
            (0..RESIDENTS).map(move |serial| reserved.build_identifier(scenario.number, serial))
        })
    })
}

impl Scenario {
    fn applies_to(&self, kind: OperationKind) -> bool {
        self.applies_to == AppliesTo::Both || kind == OperationKind::FiveGBiPlan
    }

    /// What is left of a device's fate to the scenario of that device.
    pub(crate) fn device_outcome(&self) -> Option<DeviceOutcome> {
        match self.effect {
            ScenarioEffect::Device(fate) => Some(fate),
            ScenarioEffect::NotExecuted(_)
            | ScenarioEffect::Response(_)
            | ScenarioEffect::ReversedOrder => None,
        }
    }
}

impl ReservedPrefix {
    fn match_identifier<'d>(&self, one: &'d DeviceId) -> Option<ScenarioMatch<'d>> {
        let id: &'d str = if one.has_kind("msisdn") && self.kind == "mdn" {
            one.id.strip_prefix('1')?
        } else if one.has_kind(self.kind) {
            &one.id
        } else {
            return None;
        };
        let start = id.get(..self.prefix.len())?;
        let rest = id.get(self.prefix.len()..)?;
        if !start.eq_ignore_ascii_case(self.prefix) {
            return None;
        }
        let number: u8 = rest.get(..2)?.parse().ok()?;
        let scenario = SCENARIOS.iter().find(|one| one.number == number)?;
        Some(ScenarioMatch {
            scenario,
            identifier: id,
        })
    }

    fn build_identifier(&self, number: u8, serial: u32) -> DeviceId {
        let beginning = self.scenario_prefix(number);
        let width = self.length.saturating_sub(beginning.len());
        let id = match self.kind {
            "meid" => format!("{beginning}{serial:0width$X}"),
            _ => format!("{beginning}{serial:0width$}"),
        };
        DeviceId {
            id: id.into(),
            kind: self.kind.into(),
        }
    }

    /// What an identifier of a scenario begins with.
    fn scenario_prefix(&self, number: u8) -> String {
        format!("{}{number:02}", self.prefix)
    }
}

// === For people and programs ===

/// A scenario as `sandbox scenarios` tells it.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioInfo {
    /// Its name, which the ledger gives too.
    pub name: &'static str,
    /// The changes that know it: `esim`, `five_g_bi`.
    pub changes: Vec<&'static str>,
    /// Whether it is about one `device` or the whole `request`.
    pub concerns: &'static str,
    /// What its identifiers begin with, by kind; any serial follows.
    pub identifiers: Vec<IdentifierPrefix>,
    /// What happens.
    pub happens: &'static str,
}

/// What a scenario's identifiers of one kind begin with.
#[derive(Clone, Debug, Serialize)]
pub struct IdentifierPrefix {
    /// The kind of identifier.
    pub kind: &'static str,
    /// Its first digits.
    pub prefix: String,
    /// How many digits of a serial follow; hexadecimal ones for a MEID.
    pub serial_digits: usize,
}

/// Every scenario, in the order of the numbers.
#[must_use]
pub fn scenarios() -> Vec<ScenarioInfo> {
    SCENARIOS.iter().map(scenario_info).collect()
}

fn scenario_info(scenario: &Scenario) -> ScenarioInfo {
    let both = scenario.applies_to == AppliesTo::Both;
    // Only an eSIM change names an EID.
    let possible = |reserved: &&ReservedPrefix| both || reserved.kind != "eid";
    let prefix = |reserved: &ReservedPrefix| {
        let prefix = reserved.scenario_prefix(scenario.number);
        IdentifierPrefix {
            kind: reserved.kind,
            serial_digits: reserved.length - prefix.len(),
            prefix,
        }
    };
    ScenarioInfo {
        name: scenario.name,
        changes: if both {
            vec!["esim", "five_g_bi"]
        } else {
            vec!["five_g_bi"]
        },
        concerns: match scenario.effect {
            ScenarioEffect::Device(_) => "device",
            ScenarioEffect::NotExecuted(_)
            | ScenarioEffect::Response(_)
            | ScenarioEffect::ReversedOrder => "request",
        },
        identifiers: RESERVED_PREFIXES
            .iter()
            .filter(possible)
            .map(prefix)
            .collect(),
        happens: scenario.description,
    }
}

/// The table of `docs/sandbox.md`.
#[must_use]
pub fn scenarios_markdown() -> String {
    let mut text = "| scenario | ICCID | EID | MEID | MDN | what happens |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for scenario in scenarios() {
        let cell = |kind: &str| {
            let found = scenario.identifiers.iter().find(|one| one.kind == kind);
            found.map_or_else(String::new, |one| format!("`{}…`", one.prefix))
        };
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} |\n",
            scenario.name,
            cell("iccid"),
            cell("eid"),
            cell("meid"),
            cell("mdn"),
            scenario.happens
        ));
    }
    text
}
