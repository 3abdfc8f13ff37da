//! `--config`, and one flag for each setting. The flags come from the table of settings.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser, error::Error,
    value_parser,
};
use thingspace_settings::{Flag, flags};

use crate::{
    cli::exit::ExitError,
    config::{Config, ConfigError, LoadedConfig, Mode, Sources, TABLE},
};

/// Id and long name of the flag that names the settings file.
const CONFIG_FILE: &str = "config";

/// The sources of the settings: flags, settings file and environment.
#[derive(Debug, Clone)]
pub(super) struct SettingsArgs(Sources);

/// Loads the settings and checks their combinations for this mode.
///
/// # Errors
///
/// The first invalid setting or combination.
pub(super) fn load_and_check(sources: &Sources, mode: Mode) -> Result<LoadedConfig, ConfigError> {
    let mut loaded = Config::load(sources)?;
    let warnings = loaded.config.check_for(mode)?;
    loaded.warnings.extend(warnings);
    Ok(loaded)
}

// === impl SettingsArgs ===

impl SettingsArgs {
    /// Loads the settings and checks each by itself.
    pub(super) fn load(&self) -> Result<LoadedConfig, ExitError> {
        Ok(Config::load(&self.0)?)
    }

    /// Loads the settings and checks their combinations for this mode.
    pub(super) fn load_for(&self, mode: Mode) -> Result<LoadedConfig, ExitError> {
        Ok(load_and_check(&self.0, mode)?)
    }

    fn new(
        matches: &ArgMatches,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut sources = Sources::default().with_environment(environment);
        if let Some(path) = matches.get_one::<PathBuf>(CONFIG_FILE) {
            sources = sources.with_file(path);
        }
        for flag in flags(&TABLE) {
            if let Some(value) = matches.get_one::<String>(flag.key) {
                sources = sources.with_flag(flag.key, value);
            }
        }
        Self(sources)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::new(matches, std::env::vars_os()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let help = format!("Settings file, in TOML [env: {}]", TABLE.env_config_file);
        let file = Arg::new(CONFIG_FILE)
            .long(CONFIG_FILE)
            .value_name("PATH")
            .value_parser(value_parser!(PathBuf))
            .help(help);
        command
            .arg(file)
            .next_help_heading("Settings")
            .args(flags(&TABLE).into_iter().map(flag_arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag_arg(flag: Flag) -> Arg {
    let arg = Arg::new(flag.key)
        .long(flag.key)
        .value_name(flag.placeholder)
        .value_parser(ValueParser::string())
        .help(flag.help);
    if flag.is_switch {
        arg.num_args(0..=1).default_missing_value("true")
    } else {
        // `-1` is an invalid value, not an unknown flag.
        arg.allow_hyphen_values(true)
    }
}

#[cfg(test)]
mod tests;
