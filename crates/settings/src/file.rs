//! The settings file: TOML, with a table for each group.

use std::path::Path;

use toml::{Table as TomlTable, Value};

use crate::{
    error::{ConfigError, SettingOrigin},
    kind::Syntax,
    layer::{Layer, RawValue},
    nearest::nearest,
    table::{Setting, Table},
};

/// Reads the file. `named_by` is the flag or variable that names it.
pub(crate) fn load(table: &Table, path: &Path, named_by: &str) -> Result<Layer, ConfigError> {
    let origin = SettingOrigin::File(path.to_owned());
    let text = std::fs::read_to_string(path).map_err(|error| {
        let problem = format!("cannot read {}: {error}", path.display());
        ConfigError::new(named_by, None, &problem)
    })?;
    // `Display` of the error would repeat the line, which may contain a secret.
    let content: TomlTable = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_number(&text, span.start));
        let problem = format!("not TOML at line {line}: {}", error.message());
        ConfigError::new(&path.display().to_string(), None, &problem)
    })?;
    let mut leaves = Vec::new();
    flatten("", content, &mut leaves);
    let mut layer = Layer::new();
    for (key, value) in leaves {
        let Some((setting, key)) = table.find(&key) else {
            // An empty table is a leaf.
            if value.is_table() && table.has_group(&key) {
                continue;
            }
            return Err(unknown_key(table, &key, &origin));
        };
        let text = value_text(setting, key, value, &origin)?;
        let origin = origin.clone();
        layer.insert(key, RawValue { text, origin });
    }
    Ok(layer)
}

/// The number of the line that contains this byte, starting at 1.
fn line_number(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    1 + before.filter(|b| *b == b'\n').count()
}

/// Collects every value under its dotted key. An empty table counts as a value, so that an unknown one
/// is rejected.
fn flatten(prefix: &str, table: TomlTable, leaves: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = match prefix {
            "" => name,
            prefix => format!("{prefix}.{name}"),
        };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            value => leaves.push((key, value)),
        }
    }
}

fn unknown_key(table: &Table, key: &str, origin: &SettingOrigin) -> ConfigError {
    let problem = if table.has_group(key) {
        format!("expected a table [{key}] of settings")
    } else {
        match nearest(key, table.keys()) {
            Some(known) => format!("unknown key, did you mean {known}?"),
            None => "unknown key, expected one of those that `config docs` lists".to_owned(),
        }
    };
    ConfigError::new(key, Some(origin), &problem)
}

/// Formats a value as the text that a flag would contain.
fn value_text(
    setting: &Setting,
    key: &str,
    value: Value,
    origin: &SettingOrigin,
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
        Value::Array(items) if setting.values().syntax == Syntax::List => {
            let items: Result<Vec<_>, _> = items.into_iter().map(scalar_text).collect();
            items.map(|items| items.join(","))
        }
        value => scalar_text(value),
    };
    text.map_err(|value| {
        let shown = Some(value.to_string()).filter(|_| !is_secret);
        let expected =
            if is_secret { "a string in quotes".to_owned() } else { setting.values().accepts };
        ConfigError::bad_value(key, origin, shown.as_deref(), &expected)
    })
}
