//! `docs/settings.md`, the JSON Schema and the flags, from the table of settings.

use std::sync::LazyLock;

use thingspace_settings::Flag;

use crate::config::{check::RULES, mode::Mode, settings::TABLE};

const HEAD: &str = include_str!("docs.md");

const RULES_HEAD: &str = "
## Rules for several settings

| rule | applies to |
| --- | --- |
";

/// The text of `docs/settings.md`.
pub fn markdown() -> String {
    let rules = RULES.iter().map(|rule| {
        let modes: Vec<_> = rule.modes.iter().map(|mode| mode_name(*mode)).collect();
        format!("| {} | {} |\n", rule.doc, modes.join(", "))
    });
    let tables = thingspace_settings::markdown_tables(&TABLE);
    format!("{HEAD}{tables}{RULES_HEAD}{}", rules.collect::<String>())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Serve => "`serve`",
        Mode::ServeSandbox => "`serve --sandbox`",
        Mode::Sandbox => "`sandbox`",
    }
}

/// A JSON Schema of the settings file.
pub fn json_schema() -> String {
    thingspace_settings::json_schema(&TABLE, "Settings of thingspace-gateway")
}

/// Every flag, in the order of the documentation.
pub fn flags() -> &'static [Flag] {
    static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| thingspace_settings::flags(&TABLE));
    &FLAGS
}
