//! The settings file: TOML, with a table for each group.

use std::path::Path;

use toml::{Table as TomlTable, Value};

use crate::{
    error::ConfigError,
    kind::Syntax,
    table::{Setting, Table, nearest},
    values::{Layer, RawValue},
};

/// Reads the file. `named_by` is the flag or variable that names it.
pub(crate) fn load(table: &Table, path: &Path, named_by: &str) -> Result<Layer, ConfigError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(named_by, None, &format!("cannot read {origin}: {error}"))
    })?;
    // `Display` of the error would repeat the line, which may contain a secret.
    let content: TomlTable = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let problem = format!("not TOML at line {line}: {}", error.message());
        ConfigError::new(&origin, None, &problem)
    })?;
    let mut leaves = Vec::new();
    flatten("", content, &mut leaves);
    let mut layer = Layer::new();
    for (key, value) in leaves {
        let Some((setting, key)) = table.find(&key) else {
            let problem = match nearest(&key, table.keys()) {
                // An empty table is a leaf.
                _ if value.is_table() && table.has_group(&key) => continue,
                _ if table.has_group(&key) => format!("expected a table [{key}] of settings"),
                Some(known) => format!("unknown key, did you mean {known}?"),
                None => "unknown key, expected one of those that `config docs` lists".to_owned(),
            };
            return Err(ConfigError::new(&key, Some(&origin), &problem));
        };
        let text = value_text(setting, key, value, &origin)?;
        layer.insert(key, RawValue { text, origin: origin.clone() });
    }
    Ok(layer)
}

/// Collects every value under its dotted key. An empty table counts as a value, so that an unknown one
/// is rejected.
fn flatten(prefix: &str, table: TomlTable, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            value => leaves.push((key, value)),
        }
    }
}

/// Formats a value as the text that a flag would contain.
fn value_text(
    setting: &Setting,
    key: &str,
    value: Value,
    origin: &str,
) -> Result<String, ConfigError> {
    let is_secret = setting.file_key.is_some();
    let scalar_text = |value: Value| match value {
        Value::String(text) => Ok(text),
        // A number would change a secret such as 0123 or 1e3.
        other if is_secret => Err(other),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(boolean) => Ok(boolean.to_string()),
        other => Err(other),
    };
    let text = match value {
        Value::Array(items) if (setting.values)().syntax == Syntax::List => {
            let items: Result<Vec<_>, _> = items.into_iter().map(scalar_text).collect();
            items.map(|items| items.join(","))
        }
        value => scalar_text(value),
    };
    text.map_err(|value| {
        let shown = Some(value.to_string()).filter(|_| !is_secret);
        let expected =
            if is_secret { "a string in quotes".to_owned() } else { (setting.values)().accepts };
        ConfigError::bad_value(key, origin, shown.as_deref(), &expected)
    })
}
