//! Effective settings as TOML.

use std::fmt::Write as _;

use crate::{
    error::{Origins, one_line},
    table::{Table, field_name},
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
            let file_key = setting.file_key.filter(|key| origins.contains_key(key));
            let key = file_key.unwrap_or(setting.key);
            let field = field_name(key);
            let _ = match (value, origins.get(key)) {
                (None, _) => writeln!(text, "# {field} is not set"),
                (Some(value), None) => writeln!(text, "{field} = {value} # default"),
                (Some(value), Some(origin)) => {
                    writeln!(text, "{field} = {value} # from {}", one_line(origin))
                }
            };
        }
    }
    text
}
