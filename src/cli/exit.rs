//! Exit codes.

use std::{io, process::ExitCode};

use crate::{
    cli::output::print_error,
    config::{self, ConfigError},
};

/// Exit code of a failure other than invalid settings.
const EXIT_FAILURE: u8 = 1;

/// Failure of a subcommand: its exit code, and the line for standard error.
#[derive(Debug)]
pub struct ExitError {
    code: u8,
    message: Option<String>,
}

/// Prints the error, if any, and returns the exit code.
pub fn exit_code(result: Result<(), ExitError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(message) = &error.message {
                print_error(message);
            }
            ExitCode::from(error.code)
        }
    }
}

// === impl ExitError ===

impl ExitError {
    /// Exit code 1.
    pub(super) fn failure(message: impl ToString) -> Self {
        Self { code: EXIT_FAILURE, message: Some(message.to_string()) }
    }

    /// Exit code 1 without a message: the output explains it.
    pub(super) fn silent() -> Self {
        Self { code: EXIT_FAILURE, message: None }
    }

    /// Exit code 78: invalid settings.
    pub(super) fn settings(message: impl ToString) -> Self {
        Self::with_code(config::EXIT_CODE, message)
    }

    pub(super) fn with_code(code: u8, message: impl ToString) -> Self {
        Self { code, message: Some(message.to_string()) }
    }
}

impl From<ConfigError> for ExitError {
    fn from(error: ConfigError) -> Self {
        Self::settings(error)
    }
}

impl From<io::Error> for ExitError {
    fn from(error: io::Error) -> Self {
        Self::failure(error)
    }
}
