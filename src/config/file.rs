//! The settings file: TOML, one table for each group.

use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, SettingOrigin};
use super::load::{Layer, RawValue, all_keys, known_key};
use super::nearest::nearest;
use super::settings::GROUPS;
use super::table::Setting;

/// Reads the file; `named_by` is the flag or variable that named it.
pub(super) fn load(path: &Path, named_by: &str) -> Result<Layer, ConfigError> {
    let origin = SettingOrigin::File(path.to_owned());
    let text = std::fs::read_to_string(path).map_err(|error| {
        let fault = format!("cannot read {}: {error}", path.display());
        ConfigError::new(named_by, None, &fault)
    })?;
    // Only the bare message: the error's own text would repeat the line, and a secret with it.
    let table: Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| line_number(&text, span.start));
        let fault = format!("not TOML at line {line}: {}", error.message());
        ConfigError::new(&path.display().to_string(), None, &fault)
    })?;
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    let mut layer = Layer::new();
    for (key, value) in leaves {
        let Some((setting, key)) = known_key(&key) else {
            if is_empty_group(&key, &value) {
                continue;
            }
            return Err(unknown(&key, &origin));
        };
        let text = value_text(setting, key, value, &origin)?;
        let origin = origin.clone();
        layer.insert(key, RawValue { text, origin });
    }
    Ok(layer)
}

/// The number of the line that holds this byte, counted from 1.
fn line_number(text: &str, byte: usize) -> usize {
    let before = text.bytes().take(byte);
    1 + before.filter(|b| *b == b'\n').count()
}

/// Every value of the table and the tables in it, under its dotted key. A table without any counts
/// as a value, so that an unknown one is noticed.
fn flatten(prefix: &str, table: Table, leaves: &mut Vec<(String, Value)>) {
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

fn is_empty_group(key: &str, value: &Value) -> bool {
    value.is_table() && GROUPS.iter().any(|group| group.name == key)
}

fn unknown(key: &str, origin: &SettingOrigin) -> ConfigError {
    let hint = if GROUPS.iter().any(|group| group.name == key) {
        format!("expected a table [{key}] of settings")
    } else {
        match nearest(key, all_keys()) {
            Some(near) => format!("unknown key, did you mean {near}?"),
            None => "unknown key, expected one of those that `config docs` lists".to_owned(),
        }
    };
    ConfigError::new(key, Some(origin), &hint)
}

/// The value as the text that a flag would have.
fn value_text(
    setting: &Setting,
    key: &str,
    value: Value,
    origin: &SettingOrigin,
) -> Result<String, ConfigError> {
    let secret = setting.file_key.is_some();
    let plain = |value: Value| match value {
        Value::String(text) => Ok(text),
        // A secret such as 0123 or 1e3 would not survive being read as a number.
        other if secret => Err(other),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        other => Err(other),
    };
    let text = match value {
        Value::Array(members) if setting.kind.is_list() => {
            let members: Result<Vec<_>, _> = members.into_iter().map(plain).collect();
            members.map(|members| members.join(","))
        }
        value => plain(value),
    };
    text.map_err(|value| {
        let shown = Some(value.to_string()).filter(|_| !secret);
        let expected = match secret {
            true => "a string in quotes".to_owned(),
            false => setting.kind.accepts(),
        };
        ConfigError::bad_value(key, origin, shown.as_deref(), &expected)
    })
}
