//! The values of one source, and the merged values of all sources.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    error::{ConfigError, Origins},
    kind::{Kind, Syntax},
    secret::{Secret, SecretFormat},
    table::{SettingGroup, Table},
};

/// The values that one source sets, by key.
pub(crate) type Layer = BTreeMap<&'static str, RawValue>;

/// An unparsed value. Not `Debug`: it may be a secret.
pub(crate) struct RawValue {
    pub(crate) text: String,
    pub(crate) origin: String,
}

/// The merged values of all sources, not parsed yet.
pub struct Values {
    table: &'static Table,
    merged: Layer,
}

/// The values of a group of settings. Implement it with [`settings_group!`](crate::settings_group).
pub trait Group: Sized {
    /// The settings.
    const TABLE: SettingGroup;

    /// Parses the values of all settings.
    ///
    /// # Errors
    ///
    /// The first invalid value.
    fn parse(values: &Values) -> Result<Self, ConfigError>;

    /// Formats the values as TOML, in the order of the table. `None` stands for an unset value.
    fn toml_values(&self) -> Vec<Option<String>>;
}

impl Values {
    pub(crate) fn new(table: &'static Table) -> Self {
        Self { table, merged: Layer::new() }
    }

    /// Adds a source that overrides the previous ones. A secret and its file are one setting: setting
    /// either replaces both.
    pub(crate) fn overlay(&mut self, layer: Layer) -> Result<(), ConfigError> {
        for setting in self.table.settings() {
            let Some(file_key) = setting.file_key else {
                continue;
            };
            match (layer.get(setting.key), layer.get(file_key)) {
                (Some(value), Some(_)) => {
                    let problem =
                        format!("set together with {file_key}, expected only one of them");
                    return Err(ConfigError::new(setting.key, Some(&value.origin), &problem));
                }
                (Some(_), None) => self.merged.remove(file_key),
                (None, Some(_)) => self.merged.remove(setting.key),
                (None, None) => None,
            };
        }
        self.merged.extend(layer);
        Ok(())
    }

    /// Returns the value of a setting, or its default.
    ///
    /// # Errors
    ///
    /// An invalid value.
    pub fn required<K: Kind>(
        &self,
        key: &str,
        default: &str,
        kind: &K,
    ) -> Result<K::Value, ConfigError> {
        let value = self.optional(key, kind)?.or_else(|| kind.parse(default));
        value.ok_or_else(|| ConfigError::new(key, None, "has no valid default"))
    }

    /// Returns the value of a setting. `None` if no source sets it.
    ///
    /// # Errors
    ///
    /// An invalid value.
    pub fn optional<K: Kind>(&self, key: &str, kind: &K) -> Result<Option<K::Value>, ConfigError> {
        let Some(value) = self.merged.get(key) else {
            return Ok(None);
        };
        kind.parse(&value.text).map(Some).ok_or_else(|| {
            let valid = kind.describe();
            let is_hidden = match valid.syntax {
                Syntax::Secret | Syntax::SecretUrl => true,
                // The user information ends with `@`, and the query may contain a token.
                Syntax::Url => value.text.contains(['@', '?', '#']),
                Syntax::Scalar | Syntax::Switch | Syntax::List => false,
            };
            let shown = Some(value.text.as_str()).filter(|_| !is_hidden);
            ConfigError::bad_value(key, &value.origin, shown, &valid.accepts)
        })
    }

    /// Returns a secret. `None` if no source sets it or its file. Reads the file once, so that an
    /// unreadable one prevents the start.
    ///
    /// # Errors
    ///
    /// An invalid secret, or a file that cannot be read.
    pub fn secret(
        &self,
        key: &str,
        file_key: &str,
        format: &SecretFormat,
    ) -> Result<Option<Secret>, ConfigError> {
        let Some(path) = self.merged.get(file_key) else {
            return self.optional(key, format);
        };
        let secret = Secret::in_file(PathBuf::from(&path.text), *format);
        secret.load().map_err(|error| {
            let accepts = format.describe().accepts;
            let problem = format!("{error}, expected a readable file with {accepts}");
            ConfigError::new(file_key, Some(&path.origin), &problem)
        })?;
        Ok(Some(secret))
    }

    /// The source of each key. The key of a secret also has the source of its file.
    pub fn into_origins(self) -> Origins {
        let mut origins = Origins::new();
        for (key, value) in self.merged {
            if let Some((setting, _)) = self.table.find(key) {
                origins.insert(setting.key, value.origin.clone());
            }
            origins.insert(key, value.origin);
        }
        origins
    }
}
