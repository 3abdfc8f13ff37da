//! Sources of settings: flags, environment variables and the settings file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    error::{ConfigError, SettingOrigin, one_line},
    file,
    layer::{Layer, RawValue},
    nearest::nearest,
    table::Table,
    values::Values,
};

/// All sources of settings. `Debug` shows only names, because values may be secrets.
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

/// The settings file, and the flag or variable that names it.
type NamedFile<'a> = (&'a Path, &'static str);

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
        let variables = variables.into_iter().map(|(n, v)| (n.into(), v.into()));
        self.environment.extend(variables);
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
        let mut warnings = Vec::new();
        let (environment, env_file) = self.parse_environment(table, &mut warnings)?;
        let flag_file = self.file.as_deref().map(|path| (path, "--config"));
        if let Some((path, named_by)) = flag_file.or(env_file) {
            values.overlay(file::load(table, path, named_by)?)?;
        }
        values.overlay(environment)?;
        values.overlay(self.parse_flags(table)?)?;
        Ok((values, warnings))
    }

    fn parse_environment(
        &self,
        table: &Table,
        warnings: &mut Vec<String>,
    ) -> Result<(Layer, Option<NamedFile<'_>>), ConfigError> {
        let keys: BTreeMap<String, &'static str> =
            table.keys().map(|key| (table.env_name(key), key)).collect();
        let mut layer = Layer::new();
        let mut file = None;
        for (name, value) in &self.environment {
            let name = name.to_string_lossy();
            if !name.starts_with(table.env_prefix) {
                continue;
            }
            if name == table.env_config_file {
                file = Some((Path::new(value), table.env_config_file));
                continue;
            }
            let Some(key) = keys.get(name.as_ref()) else {
                warnings.push(unknown_variable(&name, keys.keys()));
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

    fn parse_flags(&self, table: &Table) -> Result<Layer, ConfigError> {
        let mut layer = Layer::new();
        for (name, text) in &self.flags {
            let origin = SettingOrigin::Flag(format!("--{name}"));
            let found = table
                .find(name)
                .filter(|(setting, key)| *key != setting.key || setting.has_own_flag());
            let Some((_, key)) = found else {
                return Err(ConfigError::new(name, Some(&origin), "no such flag"));
            };
            let text = text.clone();
            layer.insert(key, RawValue { text, origin });
        }
        Ok(layer)
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

fn unknown_variable<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let hint = match nearest(name, known.map(String::as_str)) {
        Some(known) => format!(" (did you mean {known}?)"),
        None => String::new(),
    };
    one_line(&format!("{name} is not a setting and is ignored{hint}"))
}
