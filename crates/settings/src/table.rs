//! The table of a program's settings.

use crate::kind::{Description, Syntax};

/// One setting.
pub struct Setting {
    /// The key, such as `grpc.listen`.
    pub key: &'static str,
    /// For a secret: the key that names a file instead, such as `callbacks.password_file`.
    pub file_key: Option<&'static str>,
    /// Its documentation as one paragraph, with units and bounds.
    pub doc: &'static str,
    /// The default as text; `None` if there is none.
    pub default: Option<&'static str>,
    /// Describes the valid values.
    pub values: fn() -> Description,
}

/// A group of settings: a table of the settings file.
pub struct SettingGroup {
    /// The part of the keys before the dot, such as `grpc`.
    pub name: &'static str,
    /// Its documentation as one paragraph.
    pub doc: &'static str,
    /// The settings of the group.
    pub settings: &'static [Setting],
}

/// All settings of a program, in the order of the documentation.
pub struct Table {
    /// Prefix of the environment variables, such as `TSGW_`.
    pub env_prefix: &'static str,
    /// Environment variable that names the settings file, such as `TSGW_CONFIG`.
    pub env_config_file: &'static str,
    /// The groups.
    pub groups: &'static [SettingGroup],
}

impl Setting {
    /// True if the setting itself, and not only its `file_key`, can be passed as a flag.
    pub(crate) fn has_own_flag(&self) -> bool {
        (self.values)().syntax != Syntax::Secret
    }
}

impl Table {
    /// Every setting.
    pub fn settings(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        self.groups.iter().flat_map(|group| group.settings)
    }

    /// Every key, including those that name the files of secrets.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        let keys = |setting: &'static Setting| [Some(setting.key), setting.file_key];
        self.settings().flat_map(keys).flatten()
    }

    /// The setting with this key or `file_key`, and that key.
    pub(crate) fn find(&self, key: &str) -> Option<(&'static Setting, &'static str)> {
        self.settings().find_map(|setting| match setting.file_key {
            _ if setting.key == key => Some((setting, setting.key)),
            Some(file_key) if file_key == key => Some((setting, file_key)),
            _ => None,
        })
    }

    pub(crate) fn has_group(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group.name == name)
    }

    /// The environment variable of a key, such as `TSGW_GRPC__LISTEN` for `grpc.listen`.
    pub fn env_name(&self, key: &str) -> String {
        format!("{}{}", self.env_prefix, key.to_uppercase().replace('.', "__"))
    }
}

/// Returns the candidate with the smallest edit distance to `name`, if it is at most a third of the
/// length of `name`.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = name.chars().count() / 3;
    candidates
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The part of a key after the dot.
pub(crate) fn field_name(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, name)| name)
}
