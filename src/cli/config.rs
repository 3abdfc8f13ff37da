//! `config check`, `config show`, `config docs` and `config schema`.

use std::io::{self, Write};

use super::write_line;
use crate::config::{self, Config, ConfigError, LoadedConfig, Mode, Sources};

/// Tries the settings without starting: `settings are valid` and the warnings go to `out`, the one
/// line of an error to `err`. Returns the exit code, 0 or 78.
///
/// # Errors
///
/// What the writers say, such as a closed pipe.
pub fn check(
    sources: &Sources,
    mode: Mode,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match load_and_check(sources, mode) {
        Ok(LoadedConfig { warnings, .. }) => {
            write_line(out, "settings are valid")?;
            for warning in warnings {
                write_line(out, &format!("warning: {warning}"))?;
            }
            Ok(0)
        }
        Err(error) => print_config_error(&error, err),
    }
}

/// Prints the settings in effect as TOML, with their sources and without secrets. Only what makes a
/// setting unreadable is an error here, so that it helps to find out why `check` complains. Returns
/// the exit code, 0 or 78.
///
/// # Errors
///
/// What the writers say, such as a closed pipe.
pub fn show(
    sources: &Sources,
    mode: Mode,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match Config::load(sources) {
        Ok(LoadedConfig { config, warnings }) => {
            write_line(out, &config::render_toml(&config, mode))?;
            for warning in warnings {
                write_line(err, &format!("warning: {warning}"))?;
            }
            Ok(0)
        }
        Err(error) => print_config_error(&error, err),
    }
}

/// Prints `docs/settings.md`.
///
/// # Errors
///
/// What the writer says, such as a closed pipe.
pub fn docs(out: &mut impl Write) -> io::Result<()> {
    write_line(out, &config::markdown())
}

/// Prints a JSON Schema of the settings file.
///
/// # Errors
///
/// What the writer says, such as a closed pipe.
pub fn schema(out: &mut impl Write) -> io::Result<()> {
    write_line(out, &config::json_schema())
}

/// Loads the settings and judges them for this mode, all warnings together.
///
/// # Errors
///
/// The first thing that must stop the start.
pub fn load_and_check(sources: &Sources, mode: Mode) -> Result<LoadedConfig, ConfigError> {
    let mut loaded = Config::load(sources)?;
    let warnings = loaded.config.check_for(mode)?;
    loaded.warnings.extend(warnings);
    Ok(loaded)
}

fn print_config_error(error: &ConfigError, err: &mut impl Write) -> io::Result<u8> {
    write_line(err, &error.to_string())?;
    Ok(config::EXIT_CODE)
}
