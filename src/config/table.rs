//! How one table becomes the structs, the reader, the flags and the documentation.

use std::sync::LazyLock;

use super::kind::{Describe, ValueKind, toml_string};
use super::load::Values;
use super::secret::{Secret, SecretFormat};
use super::{ConfigError, ENV_PREFIX};

/// What is known of one key.
pub(super) struct Setting {
    /// The key, such as `grpc.listen`.
    pub(super) key: &'static str,
    /// For a secret: the key that names a file instead, such as `callbacks.password_file`.
    pub(super) file_key: Option<&'static str>,
    /// What it is, unit and bounds included, line by line.
    pub(super) doc: &'static [&'static str],
    /// The default, in text; `None` where there is none.
    pub(super) default: Option<&'static str>,
    /// What a value may be.
    pub(super) kind: &'static dyn Describe,
}

/// A group of keys: what stands before the dot.
pub(super) struct SettingGroup {
    /// The name, such as `grpc`.
    pub(super) name: &'static str,
    /// What the group is about.
    pub(super) doc: &'static [&'static str],
    /// Its keys.
    pub(super) settings: &'static [Setting],
}

/// One key's present value, ready for a TOML file.
pub(super) struct EffectiveSetting {
    /// The key, or a secret's twin where a file holds it.
    pub(super) key: &'static str,
    /// The value in TOML; `None` when there is none.
    pub(super) toml: Option<String>,
}

impl Setting {
    /// The documentation as one paragraph.
    pub(super) fn text(&self) -> String {
        paragraph(self.doc)
    }
}

/// Lines of documentation as one paragraph.
pub(super) fn paragraph(lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// The environment variable of a key: `TSGW_GRPC__LISTEN` for `grpc.listen`.
pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

// === Flags ===

/// A command-line flag: every key that is no secret, and the `_file` twin of each that is; an address
/// that may have a secret in it has both.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key, which is the long name of the flag too.
    pub key: &'static str,
    /// What it is for, with its default and its environment variable.
    pub help: String,
    /// The word that stands for the value.
    pub placeholder: &'static str,
    /// Whether the flag alone means `true`.
    pub is_switch: bool,
}

/// Every flag, in the order of the documentation. A secret itself has none: the arguments of a
/// process can be read by others on the machine.
pub fn flags() -> &'static [Flag] {
    static FLAGS: LazyLock<Vec<Flag>> =
        LazyLock::new(|| all_settings().flat_map(flags_for_setting).collect());
    &FLAGS
}

/// Every setting of every group.
pub(super) fn all_settings() -> impl Iterator<Item = &'static Setting> {
    super::settings::GROUPS
        .iter()
        .flat_map(|group| group.settings)
}

fn flags_for_setting(setting: &'static Setting) -> impl Iterator<Item = Flag> {
    let own = setting.file_key.is_none() || setting.kind.has_flag();
    let keys = own
        .then_some(setting.key)
        .into_iter()
        .chain(setting.file_key);
    keys.map(move |key| build_flag(setting, key))
}

fn build_flag(setting: &'static Setting, key: &'static str) -> Flag {
    let is_twin = setting.file_key == Some(key);
    let text = setting.text();
    let mut help = text
        .split_inclusive(". ")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    if is_twin {
        help.insert_str(0, "File that contains this secret: ");
    }
    if let Some(default) = setting.default.filter(|text| !text.is_empty()) {
        help.push_str(&format!(" [default: {default}]"));
    }
    help.push_str(&format!(" [env: {}]", env_name(key)));
    Flag {
        key,
        help,
        placeholder: if is_twin {
            "PATH"
        } else {
            setting.kind.placeholder()
        },
        is_switch: setting.kind.is_switch(),
    }
}

// === The three flavours of a key ===

/// A key that always has a value.
pub(super) struct WithDefault;
/// A key that may be left unset.
pub(super) struct Optional;
/// A secret, which may be left unset.
pub(super) struct Sensitive;

impl WithDefault {
    pub(super) const IS_SECRET: bool = false;

    pub(super) fn parse<K: ValueKind>(
        values: &Values,
        setting: &Setting,
        kind: &K,
    ) -> Result<K::Value, ConfigError> {
        let value = match values.parsed(setting, kind)? {
            Some(value) => Some(value),
            None => setting.default.and_then(|text| kind.parse(text)),
        };
        // A test reads every default, so this is never seen.
        value.ok_or_else(|| ConfigError::new(setting.key, None, "has no valid default"))
    }

    pub(super) fn effective<K: ValueKind>(
        setting: &Setting,
        kind: &K,
        value: &K::Value,
    ) -> EffectiveSetting {
        EffectiveSetting {
            key: setting.key,
            toml: Some(kind.toml(value)),
        }
    }
}

impl Optional {
    pub(super) const IS_SECRET: bool = false;

    pub(super) fn parse<K: ValueKind>(
        values: &Values,
        setting: &Setting,
        kind: &K,
    ) -> Result<Option<K::Value>, ConfigError> {
        values.parsed(setting, kind)
    }

    pub(super) fn effective<K: ValueKind>(
        setting: &Setting,
        kind: &K,
        value: &Option<K::Value>,
    ) -> EffectiveSetting {
        EffectiveSetting {
            key: setting.key,
            toml: value.as_ref().map(|value| kind.toml(value)),
        }
    }
}

impl Sensitive {
    pub(super) const IS_SECRET: bool = true;

    pub(super) fn parse(
        values: &Values,
        setting: &Setting,
        rule: &SecretFormat,
    ) -> Result<Option<Secret>, ConfigError> {
        values.secret(setting, *rule)
    }

    pub(super) fn effective(
        setting: &Setting,
        _: &SecretFormat,
        value: &Option<Secret>,
    ) -> EffectiveSetting {
        let file = value.as_ref().and_then(Secret::path);
        EffectiveSetting {
            key: setting
                .file_key
                .filter(|_| file.is_some())
                .unwrap_or(setting.key),
            toml: value.as_ref().map(|_| match file {
                Some(path) => toml_string(&path.to_string_lossy()),
                None => toml_string("<hidden>"),
            }),
        }
    }
}

// === The table ===

/// The table of all keys. A line
///
/// ```text
/// /// What it is, with unit and bounds.
/// key: Type = Always(kind) or "default";
/// ```
///
/// makes a public field, its reader, its flag, its environment variable and its documentation.
macro_rules! settings {
    ($(
        $(#[doc = $group_doc:literal])+
        $group:ident: $Group:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $Type:ty = $Flavour:ident($kind:expr) $(or $default:literal)?;
            )+
        }
    )+) => {
        /// Every setting, valid one by one. What several of them say together is judged by
        /// [`Config::check_for`].
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[doc = $group_doc])+ pub $group: $Group, )+
            /// Who set what; keys that nobody set are absent.
            pub(super) origins: BTreeMap<&'static str, SettingOrigin>,
        }

        $(
            $(#[doc = $group_doc])+
            #[derive(Clone, Debug)]
            pub struct $Group {
                $( $(#[doc = $doc])+ pub $field: $Type, )+
            }
        )+

        /// The keys of all groups, as documented.
        pub(super) static GROUPS: &[SettingGroup] = &[$(
            SettingGroup {
                name: stringify!($group),
                doc: &[$($group_doc),+],
                settings: $group::SETTINGS,
            },
        )+];

        $(
            /// One description for each field of the group.
            mod $group {
                #[allow(clippy::wildcard_imports, reason = "the table's own vocabulary")]
                use super::*;

                pub(super) static SETTINGS: &[Setting] = &[$( $field::SETTING, )+];

                $(
                    pub(super) mod $field {
                        #[allow(clippy::wildcard_imports, reason = "the table's own vocabulary")]
                        use super::super::*;

                        const KEY: &str = concat!(stringify!($group), ".", stringify!($field));
                        const FILE_KEY: &str = concat!(stringify!($group), ".", stringify!($field), "_file");
                        pub(in super::super) const SETTING: Setting = Setting {
                            key: KEY,
                            file_key: if $Flavour::IS_SECRET { Some(FILE_KEY) } else { None },
                            doc: &[$($doc),+],
                            default: settings!(@default $($default)?),
                            kind: &$kind,
                        };
                    }
                )+
            }
        )+

        impl Config {
            /// Reads every key from what the sources say.
            pub(super) fn from_values(values: Values) -> Result<Self, ConfigError> {
                Ok(Self {
                    $( $group: $Group {
                        $( $field: $Flavour::parse(&values, &$group::$field::SETTING, &$kind)?, )+
                    }, )+
                    origins: values.into_origins(),
                })
            }

            /// Every key with its present value, in the order of the documentation.
            pub(super) fn effective_settings(&self) -> Vec<EffectiveSetting> {
                vec![$($(
                    $Flavour::effective(&$group::$field::SETTING, &$kind, &self.$group.$field),
                )+)+]
            }
        }
    };
    (@default) => { None };
    (@default $default:literal) => { Some($default) };
}

pub(super) use settings;
