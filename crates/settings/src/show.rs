//! Effective settings as TOML.

use std::fmt::Write as _;

use crate::{
    error::{Origins, one_line},
    table::{Setting, Table, field_name},
};

/// Formats values as a settings file. `values` has the TOML values of each group of the table, in the
/// same order. A comment names the source of each value.
pub fn render_toml<const N: usize>(
    table: &Table,
    values: [Vec<Option<String>>; N],
    origins: &Origins,
) -> String {
    let mut text = String::new();
    for (group, values) in table.groups.iter().zip(values) {
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gap}[{}]", group.name);
        for (setting, value) in group.settings.iter().zip(values) {
            let _ = writeln!(text, "{}", line(setting, value.as_deref(), origins));
        }
    }
    text
}

fn line(setting: &Setting, value: Option<&str>, origins: &Origins) -> String {
    let file_key = setting.file_key.filter(|key| origins.contains_key(key));
    let key = file_key.unwrap_or(setting.key);
    let field = field_name(key);
    let Some(value) = value else {
        return format!("# {field} is not set");
    };
    let origin = match origins.get(key) {
        None => "default".to_owned(),
        Some(origin) => format!("from {}", one_line(&origin.to_string())),
    };
    format!("{field} = {value} # {origin}")
}
