//! Sources of settings: flags, environment variables and the settings file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    error::{ConfigError, one_line},
    file,
    table::{Table, nearest},
    values::{Layer, RawValue, Values},
};

/// All sources of settings. `Debug` shows none of them, because values may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    file: Option<PathBuf>,
}

/// Settings and the warnings about their sources.
#[derive(Clone, Debug)]
pub struct LoadedConfig<C> {
    /// The settings.
    pub config: C,
    /// Warnings of one line each, such as an unknown environment variable.
    pub warnings: Vec<String>,
}

impl Sources {
    /// Adds a flag by its key, as in `--grpc.listen 127.0.0.1:0`.
    #[must_use]
    pub fn with_flag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Adds environment variables. Those without the prefix of the table are ignored.
    #[must_use]
    pub fn with_environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        self.environment.extend(variables.into_iter().map(|(n, v)| (n.into(), v.into())));
        self
    }

    /// Sets the settings file. It overrides the environment variable that names one.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads all sources. Also returns warnings, one line each.
    ///
    /// # Errors
    ///
    /// An unknown key or flag, a variable that is not UTF-8, or an unreadable file.
    pub fn read(&self, table: &'static Table) -> Result<(Values, Vec<String>), ConfigError> {
        let mut values = Values::new(table);
        let (environment, warnings) = self.parse_environment(table)?;
        let mut variables = self.environment.iter();
        let env_file = variables.rfind(|(name, _)| *name == table.env_config_file);
        let env_file = env_file.map(|(_, path)| (Path::new(path), table.env_config_file));
        let flag_file = self.file.as_deref().map(|path| (path, "--config"));
        if let Some((path, named_by)) = flag_file.or(env_file) {
            values.overlay(file::load(table, path, named_by)?)?;
        }
        values.overlay(environment)?;
        values.overlay(self.parse_flags(table)?)?;
        Ok((values, warnings))
    }

    /// Returns the values of the environment, and warnings about unknown variables.
    fn parse_environment(&self, table: &Table) -> Result<(Layer, Vec<String>), ConfigError> {
        let keys: BTreeMap<String, &'static str> =
            table.keys().map(|key| (table.env_name(key), key)).collect();
        let mut layer = Layer::new();
        let mut warnings = Vec::new();
        for (name, value) in &self.environment {
            let origin = name.to_string_lossy().into_owned();
            if !origin.starts_with(table.env_prefix) || origin == table.env_config_file {
                continue;
            }
            let Some(key) = keys.get(&origin) else {
                let known = nearest(&origin, keys.keys().map(String::as_str));
                let hint = known.map_or_else(String::new, |it| format!(" (did you mean {it}?)"));
                warnings.push(one_line(&format!("{origin} is not a setting and is ignored{hint}")));
                continue;
            };
            let Some(text) = value.to_str().map(str::to_owned) else {
                return Err(ConfigError::bad_value(key, &origin, None, "UTF-8 text"));
            };
            layer.insert(key, RawValue { text, origin });
        }
        warnings.sort();
        Ok((layer, warnings))
    }

    fn parse_flags(&self, table: &Table) -> Result<Layer, ConfigError> {
        let mut layer = Layer::new();
        for (name, text) in &self.flags {
            let origin = format!("--{name}");
            let found = table
                .find(name)
                .filter(|(setting, key)| *key != setting.key || setting.has_own_flag());
            let Some((_, key)) = found else {
                return Err(ConfigError::new(name, Some(&origin), "no such flag"));
            };
            layer.insert(key, RawValue { text: text.clone(), origin });
        }
        Ok(layer)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
