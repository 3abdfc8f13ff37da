//! Markdown documentation.

use crate::table::{Setting, SettingGroup, Table};

/// A section for each group, with a table of its settings.
pub fn markdown_tables(table: &Table) -> String {
    table.groups.iter().map(section).collect()
}

fn section(group: &SettingGroup) -> String {
    let rows: String = group.settings.iter().map(row).collect();
    format!(
        "\n## {}\n\n{}\n\n| key | default | description |\n| --- | --- | --- |\n{rows}",
        group.name, group.doc
    )
}

fn row(setting: &Setting) -> String {
    let key = match setting.file_key {
        Some(file_key) => format!("`{}` or `{file_key}`", setting.key),
        None => format!("`{}`", setting.key),
    };
    let default = match setting.default {
        None => "not set".to_owned(),
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
    };
    let label = if setting.file_key.is_some() { "Secret" } else { "Valid values" };
    format!("| {key} | {default} | {} {label}: {}. |\n", setting.doc, (setting.values)().accepts)
}
