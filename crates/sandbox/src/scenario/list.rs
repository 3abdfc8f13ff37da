//! The list of scenarios, as `sandbox scenarios` prints it.

use serde::Serialize;

use crate::{
    operations::OPERATIONS,
    scenario::{
        identifiers::{IdentifierPrefix, RESERVED_PREFIXES},
        table::{SCENARIOS, Scenario},
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

/// Returns all scenarios, in the order of their numbers.
#[must_use]
pub fn scenarios() -> Vec<ScenarioInfo> {
    SCENARIOS.iter().map(scenario_info).collect()
}

fn scenario_info(scenario: &Scenario) -> ScenarioInfo {
    let operations = OPERATIONS.iter().filter(|operation| scenario.applies_to(operation));
    // Only eSIM changes, which have the scenarios of all operations, require an EID.
    let has_eid = scenario.feature.is_none();
    let prefixes = RESERVED_PREFIXES.iter().filter(|prefix| has_eid || prefix.kind != "eid");
    ScenarioInfo {
        name: scenario.name,
        changes: operations.map(|operation| operation.name).collect(),
        concerns: if scenario.device_outcome().is_some() { "device" } else { "request" },
        identifiers: prefixes.map(|prefix| prefix.of_scenario(scenario.number)).collect(),
        happens: scenario.description,
    }
}

/// Returns the table of `docs/sandbox.md`.
#[must_use]
pub fn scenarios_markdown() -> String {
    let row = |scenario: ScenarioInfo| {
        let cell = |kind| {
            let prefix = scenario.identifiers.iter().find(|id| id.kind == kind);
            prefix.map_or_else(String::new, |id| format!("`{}…`", id.prefix))
        };
        let [iccid, eid, meid, mdn] = ["iccid", "eid", "meid", "mdn"].map(cell);
        let ScenarioInfo { name, happens, .. } = &scenario;
        format!("| `{name}` | {iccid} | {eid} | {meid} | {mdn} | {happens} |\n")
    };
    "| scenario | ICCID | EID | MEID | MDN | what happens |\n\
     | --- | --- | --- | --- | --- | --- |\n"
        .to_owned()
        + &scenarios().into_iter().map(row).collect::<String>()
}
