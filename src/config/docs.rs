//! `docs/settings.md`, the JSON Schema and the flags, from the table of settings.

use thingspace_settings::Flag;

use crate::config::{mode::Mode, rules::RULES, settings::TABLE};

const HEAD: &str = include_str!("docs.md");

const RULES_HEAD: &str = "
## Rules for several settings

| rule | applies to |
| --- | --- |
";

/// The text of `docs/settings.md`.
pub fn markdown() -> String {
    let rules = RULES.iter().map(|rule| {
        let modes = rule.modes.iter().map(|mode| match mode {
            Mode::Serve => "`serve`",
            Mode::ServeSandbox => "`serve --sandbox`",
            Mode::Sandbox => "`sandbox`",
        });
        format!("| {} | {} |\n", rule.doc, modes.collect::<Vec<_>>().join(", "))
    });
    let tables = thingspace_settings::markdown_tables(&TABLE);
    format!("{HEAD}{tables}{RULES_HEAD}{}", rules.collect::<String>())
}

/// A JSON Schema of the settings file.
pub fn json_schema() -> String {
    thingspace_settings::json_schema(&TABLE, "Settings of thingspace-gateway")
}

/// Every flag, in the order of the documentation.
pub fn flags() -> Vec<Flag> {
    thingspace_settings::flags(&TABLE)
}
