//! The list of scenarios, as `sandbox scenarios` prints it.

use serde::Serialize;

use crate::{
    operations::OPERATIONS,
    scenario::{
        definition::{Scenario, ScenarioEffect},
        identifiers::RESERVED_PREFIXES,
        table::SCENARIOS,
    },
};

/// A scenario in the list.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioInfo {
    /// Its name in the ledger.
    pub name: &'static str,
    /// The operations that it applies to.
    pub changes: Vec<&'static str>,
    /// `device` or `request`.
    pub concerns: &'static str,
    /// The prefixes that select it.
    pub identifiers: Vec<IdentifierPrefix>,
    /// Its description, in Markdown.
    pub happens: &'static str,
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

/// Returns all scenarios, in the order of their numbers.
#[must_use]
pub fn scenarios() -> Vec<ScenarioInfo> {
    SCENARIOS.iter().map(scenario_info).collect()
}

fn scenario_info(scenario: &Scenario) -> ScenarioInfo {
    let operations = OPERATIONS.iter();
    // Only eSIM changes, which have the scenarios of all operations, require an EID.
    let has_eid = scenario.feature.is_none();
    let prefixes = RESERVED_PREFIXES.iter();
    ScenarioInfo {
        name: scenario.name,
        changes: operations
            .filter(|operation| scenario.applies_to(operation))
            .map(|operation| operation.name)
            .collect(),
        concerns: match scenario.effect {
            ScenarioEffect::Device(_) => "device",
            ScenarioEffect::NotExecuted(_)
            | ScenarioEffect::Response(_)
            | ScenarioEffect::ReversedOrder => "request",
        },
        identifiers: prefixes
            .filter(|reserved| has_eid || reserved.kind != "eid")
            .map(|reserved| {
                let (prefix, serial_digits) = reserved.of_scenario(scenario.number);
                IdentifierPrefix { kind: reserved.kind, prefix, serial_digits }
            })
            .collect(),
        happens: scenario.description,
    }
}

/// Returns the table of `docs/sandbox.md`.
#[must_use]
pub fn scenarios_markdown() -> String {
    let mut text = "| scenario | ICCID | EID | MEID | MDN | what happens |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for scenario in scenarios() {
        let cell = |kind: &str| {
            let prefix = scenario.identifiers.iter().find(|id| id.kind == kind);
            prefix.map_or_else(String::new, |id| format!("`{}…`", id.prefix))
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
