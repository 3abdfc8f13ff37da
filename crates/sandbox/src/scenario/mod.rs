//! Scenarios: situations that an identifier of a device makes happen, as a
//! payment provider's test cards do.
//!
//! A scenario's identifier is a prefix that is reserved for the sandbox, the
//! scenario's two digits, and a serial. The prefixes end in a digit that test
//! data which counts up from 0 never reaches, so that nobody meets a scenario by
//! accident; no IMEI is one, because real ones begin with the same digits. The
//! table itself is in `scenarios.rs`.

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::changes::ChangeKind;
use super::course::{Before, Reply};
use super::fate::Fate;
use super::identifiers::{Device, DeviceId};
use super::scenarios::SCENARIOS;

/// One row of the table.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Two digits of the identifier, and never another scenario's.
    pub(super) number: u8,
    pub(super) name: &'static str,
    /// What happens, for people.
    pub(super) happens: &'static str,
    pub(super) of: Of,
    pub(super) does: Does,
}

/// The changes that know a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Both,
    FiveGBi,
}

/// What a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// The one device, and how it is told.
    Device(Fate),
    /// The whole request, which is not executed.
    Before(Before),
    /// The answer to the whole request, which is executed.
    Reply(Reply),
    /// The order in which the devices of the whole request are told.
    Reversed,
}

/// A kind of identifier and what a scenario's begins with, before its number.
struct Reserved {
    kind: &'static str,
    prefix: &'static str,
    /// Digits of the whole identifier.
    length: usize,
}

/// In the order in which they decide: an EID may hold several profiles, and
/// an ICCID is one of them; a MEID is the device, an MDN only its line.
const RESERVED: [Reserved; 4] = [
    Reserved {
        kind: "iccid",
        prefix: "99949",
        length: 20,
    },
    Reserved {
        kind: "eid",
        prefix: "999",
        length: 32,
    },
    Reserved {
        kind: "meid",
        prefix: "FF00000F",
        length: 14,
    },
    Reserved {
        kind: "mdn",
        prefix: "5559",
        length: 10,
    },
];

/// A scenario, and the identifier that asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'d> {
    pub(super) scenario: &'static Scenario,
    pub(super) identifier: &'d str,
}

/// The scenario of a device, if one of its identifiers asks for one.
pub(super) fn of<'d>(kind: ChangeKind, device: &'d [DeviceId]) -> Option<Hit<'d>> {
    RESERVED.iter().find_map(|reserved| {
        device
            .iter()
            .find_map(|one| reserved.read(one))
            .filter(|hit| hit.scenario.concerns(kind))
    })
}

/// The scenarios of a request's devices, in the order of the devices.
pub(super) fn all(kind: ChangeKind, devices: &[Device]) -> Vec<Hit<'_>> {
    devices
        .iter()
        .filter_map(|device| of(kind, device))
        .collect()
}

/// Serials of the devices that are there before anybody asks.
const RESIDENTS: u32 = 16;

/// The 5G devices that are on whatever plan they are asked for, and were before: the first serials of each
/// scenario that says so. They have to be in a list that is read before the change as well, and no list
/// could hold all serials.
pub(super) fn residents() -> impl Iterator<Item = DeviceId> {
    let kinds = RESERVED
        .iter()
        .filter(|one| !matches!(one.kind, "iccid" | "eid"));
    kinds.flat_map(|reserved| {
        let on_plan =
            |scenario: &&Scenario| scenario.fate().is_some_and(|fate| fate.on_plan_before);
        let scenarios = SCENARIOS.iter().filter(on_plan);
        scenarios.flat_map(move |scenario| {
            (0..RESIDENTS).map(move |serial| reserved.identifier(scenario.number, serial))
        })
    })
}

impl Scenario {
    fn concerns(&self, kind: ChangeKind) -> bool {
        self.of == Of::Both || kind == ChangeKind::FiveGBi
    }

    /// What is left of a device's fate to the scenario of that device.
    pub(super) fn fate(&self) -> Option<Fate> {
        match self.does {
            Does::Device(fate) => Some(fate),
            Does::Before(_) | Does::Reply(_) | Does::Reversed => None,
        }
    }
}

impl Reserved {
    fn read<'d>(&self, one: &'d DeviceId) -> Option<Hit<'d>> {
        let id: &'d str = if one.is("msisdn") && self.kind == "mdn" {
            one.id.strip_prefix('1')?
        } else if one.is(self.kind) {
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
        Some(Hit {
            scenario,
            identifier: id,
        })
    }

    fn identifier(&self, number: u8, serial: u32) -> DeviceId {
        let beginning = self.beginning(number);
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
    fn beginning(&self, number: u8) -> String {
        format!("{}{number:02}", self.prefix)
    }
}

// === For people and programs ===

/// A scenario as `sandbox scenarios` tells it.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name, which the ledger gives too.
    pub name: &'static str,
    /// The changes that know it: `esim`, `five_g_bi`.
    pub changes: Vec<&'static str>,
    /// Whether it is about one `device` or the whole `request`.
    pub concerns: &'static str,
    /// What its identifiers begin with, by kind; any serial follows.
    pub identifiers: Vec<Prefix>,
    /// What happens.
    pub happens: &'static str,
}

/// What a scenario's identifiers of one kind begin with.
#[derive(Clone, Debug, Serialize)]
pub struct Prefix {
    /// The kind of identifier.
    pub kind: &'static str,
    /// Its first digits.
    pub prefix: String,
    /// How many digits of a serial follow; hexadecimal ones for a MEID.
    pub serial_digits: usize,
}

/// Every scenario, in the order of the numbers.
#[must_use]
pub fn scenarios() -> Vec<Listed> {
    SCENARIOS.iter().map(listed).collect()
}

fn listed(scenario: &Scenario) -> Listed {
    let both = scenario.of == Of::Both;
    // Only an eSIM change names an EID.
    let possible = |reserved: &&Reserved| both || reserved.kind != "eid";
    let prefix = |reserved: &Reserved| {
        let prefix = reserved.beginning(scenario.number);
        Prefix {
            kind: reserved.kind,
            serial_digits: reserved.length - prefix.len(),
            prefix,
        }
    };
    Listed {
        name: scenario.name,
        changes: if both {
            vec!["esim", "five_g_bi"]
        } else {
            vec!["five_g_bi"]
        },
        concerns: match scenario.does {
            Does::Device(_) => "device",
            Does::Before(_) | Does::Reply(_) | Does::Reversed => "request",
        },
        identifiers: RESERVED.iter().filter(possible).map(prefix).collect(),
        happens: scenario.happens,
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
