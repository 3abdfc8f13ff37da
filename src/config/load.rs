//! Flags over environment over file over defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, SettingOrigin};
use super::file;
use super::kind::ValueKind;
use super::nearest::nearest;
use super::secret::{Secret, SecretFormat};
use super::table::{Setting, all_settings, env_name};
use super::{Config, ENV_CONFIG_FILE, ENV_PREFIX};

/// Everything that settings can come from. `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    file: Option<PathBuf>,
}

impl Sources {
    /// Adds a flag by its key, as in `--grpc.listen 127.0.0.1:0`. Secrets have no flag, their `_file`
    /// twins do.
    #[must_use]
    pub fn with_flag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Adds environment variables; those that do not begin with `TSGW_` are not kept.
    #[must_use]
    pub fn with_environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(n, v)| (n.into(), v.into()));
        self.environment
            .extend(variables.filter(|(name, _)| name.to_string_lossy().starts_with(ENV_PREFIX)));
        self
    }

    /// Names the settings file, as `--config` does; this wins over `TSGW_CONFIG`.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<_> = self.flags.iter().map(|(key, _)| key).collect();
        let environment: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Sources")
            .field("flags", &flags)
            .field("environment", &environment)
            .field("file", &self.file)
            .finish()
    }
}

/// Settings, and what is odd about their sources without being wrong.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The settings.
    pub config: Config,
    /// One line each, such as a `TSGW_` variable that is none of ours.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads all sources. Call [`Config::check_for`] next.
    ///
    /// # Errors
    ///
    /// The first unknown key, bad value, or unreadable file.
    pub fn load(sources: &Sources) -> Result<LoadedConfig, ConfigError> {
        let mut values = Values::default();
        let mut warnings = Vec::new();
        let (environment, env_file) = parse_environment(sources, &mut warnings)?;
        let flag_file = sources.file.as_deref().map(|path| (path, "--config"));
        if let Some((path, named_by)) = flag_file.or(env_file) {
            values.overlay(file::load(path, named_by)?)?;
        }
        values.overlay(environment)?;
        values.overlay(parse_flags(sources)?)?;
        let config = Self::from_values(values)?;
        Ok(LoadedConfig { config, warnings })
    }

    /// Whether any source set this key (a secret's, also through its `_file` twin), rather than its
    /// default.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Which source set this key; `None` when none did.
    pub fn origin(&self, key: &str) -> Option<&SettingOrigin> {
        self.origins.get(key)
    }
}

/// What one source says.
pub(super) type Layer = BTreeMap<&'static str, RawValue>;

/// One value as text, and where it stood. Not `Debug`: it may be a secret.
pub(super) struct RawValue {
    pub(super) text: String,
    pub(super) origin: SettingOrigin,
}

/// The key of the table that this is, or the `_file` twin of one.
pub(super) fn known_key(key: &str) -> Option<(&'static Setting, &'static str)> {
    all_settings().find_map(|setting| match setting.file_key {
        _ if setting.key == key => Some((setting, setting.key)),
        Some(twin) if twin == key => Some((setting, twin)),
        _ => None,
    })
}

/// Every key, twins included.
pub(super) fn all_keys() -> impl Iterator<Item = &'static str> {
    all_settings().flat_map(|setting| std::iter::once(setting.key).chain(setting.file_key))
}

// === Environment and flags ===

type NamedFile<'a> = Option<(&'a Path, &'static str)>;

fn parse_environment<'a>(
    sources: &'a Sources,
    warnings: &mut Vec<String>,
) -> Result<(Layer, NamedFile<'a>), ConfigError> {
    let by_name: BTreeMap<String, &'static str> =
        all_keys().map(|key| (env_name(key), key)).collect();
    let mut layer = Layer::new();
    let mut file = None;
    for (name, value) in &sources.environment {
        let name = name.to_string_lossy();
        if name == ENV_CONFIG_FILE {
            file = Some((Path::new(value), ENV_CONFIG_FILE));
            continue;
        }
        let Some(key) = by_name.get(name.as_ref()) else {
            warnings.push(unknown_variable(&name, by_name.keys()));
            continue;
        };
        let origin = SettingOrigin::Environment(name.into_owned());
        let Some(text) = value.to_str().map(str::to_owned) else {
            return Err(ConfigError::bad_value(key, &origin, None, "UTF-8 text"));
        };
        layer.insert(key, RawValue { text, origin });
    }
    warnings.sort();
    Ok((layer, file))
}

fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let hint = match nearest(name, known.map(String::as_str)) {
        Some(near) => format!(" (did you mean {near}?)"),
        None => String::new(),
    };
    super::error::one_line(&format!("{name} is not a setting and is ignored{hint}"))
}

fn parse_flags(sources: &Sources) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in &sources.flags {
        let origin = SettingOrigin::Flag(format!("--{name}"));
        let known = known_key(name).filter(|(setting, key)| {
            setting.file_key.is_none_or(|twin| twin == *key) || setting.kind.has_flag()
        });
        let Some((_, key)) = known else {
            return Err(ConfigError::new(name, Some(&origin), "no such flag"));
        };
        let text = text.clone();
        layer.insert(key, RawValue { text, origin });
    }
    Ok(layer)
}

// === Values ===

/// What all sources say together.
#[derive(Default)]
pub(super) struct Values(Layer);

impl Values {
    /// Puts a source over those before it. A secret and its twin are one setting: whichever form the
    /// stronger source uses replaces the other.
    fn overlay(&mut self, layer: Layer) -> Result<(), ConfigError> {
        for setting in all_settings() {
            let Some(twin) = setting.file_key else {
                continue;
            };
            match (layer.get(setting.key), layer.get(twin)) {
                (Some(entry), Some(_)) => {
                    let fault = format!("set together with {twin}, expected only one of them");
                    return Err(ConfigError::new(setting.key, Some(&entry.origin), &fault));
                }
                (Some(_), None) => self.0.remove(twin),
                (None, Some(_)) => self.0.remove(setting.key),
                (None, None) => None,
            };
        }
        self.0.extend(layer);
        Ok(())
    }

    /// The value of a key, if any source set it.
    pub(super) fn parsed<K: ValueKind>(
        &self,
        setting: &Setting,
        kind: &K,
    ) -> Result<Option<K::Value>, ConfigError> {
        let Some(entry) = self.0.get(setting.key) else {
            return Ok(None);
        };
        let fault = || {
            let value = Some(entry.text.as_str()).filter(|text| !kind.must_hide(text));
            ConfigError::bad_value(setting.key, &entry.origin, value, &kind.accepts())
        };
        kind.parse(&entry.text).map(Some).ok_or_else(fault)
    }

    /// A secret, if any source set it or its twin. A file is read once, so that one that cannot be
    /// read stops the start.
    pub(super) fn secret(
        &self,
        setting: &Setting,
        rule: SecretFormat,
    ) -> Result<Option<Secret>, ConfigError> {
        use super::kind::Describe as _;

        if let Some(entry) = self.0.get(setting.key) {
            let fault =
                || ConfigError::bad_value(setting.key, &entry.origin, None, &rule.accepts());
            return Secret::inline(&entry.text, rule)
                .map(Some)
                .ok_or_else(fault);
        }
        let Some((twin, entry)) = setting.file_key.and_then(|twin| self.0.get_key_value(twin))
        else {
            return Ok(None);
        };
        let secret = Secret::in_file(PathBuf::from(&entry.text), rule);
        match secret.load() {
            Ok(_) => Ok(Some(secret)),
            Err(error) => {
                let fault = format!("{error}, expected a readable file with {}", rule.accepts());
                Err(ConfigError::new(twin, Some(&entry.origin), &fault))
            }
        }
    }

    /// Who set what. A twin counts for its secret too.
    pub(super) fn into_origins(self) -> BTreeMap<&'static str, SettingOrigin> {
        let mut origins = BTreeMap::new();
        for (key, entry) in self.0 {
            if let Some((setting, _)) = known_key(key) {
                origins.insert(setting.key, entry.origin.clone());
            }
            origins.insert(key, entry.origin);
        }
        origins
    }
}
