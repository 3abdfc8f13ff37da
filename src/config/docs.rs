//! `docs/settings.md`, from the tables of settings and of rules.

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
