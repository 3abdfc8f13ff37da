//! `sandbox`: runs a simulated ThingSpace, or lists its scenarios.

use clap::{Args, Subcommand};
use thingspace_sandbox::{Sandbox, scenarios, scenarios_markdown};

use crate::{
    cli::{
        exit::ExitError, output::print_line, run::run_until_shutdown, settings_args::SettingsArgs,
    },
    config::Mode,
};

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SandboxCommand {
    #[command(subcommand)]
    pub(super) command: Option<SandboxSubcommand>,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum SandboxSubcommand {
    /// List the identifiers that trigger each scenario
    Scenarios {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

// === impl SandboxCommand ===

impl SandboxCommand {
    /// Runs the sandbox until SIGTERM or SIGINT, or prints the scenarios.
    ///
    /// # Errors
    ///
    /// Invalid settings (exit code 78), or a failed start.
    pub fn run(self) -> Result<(), ExitError> {
        match self.command {
            Some(SandboxSubcommand::Scenarios { json: true }) => {
                let text = serde_json::to_string_pretty(&scenarios());
                Ok(print_line(&text.map_err(ExitError::failure)?)?)
            }
            Some(SandboxSubcommand::Scenarios { json: false }) => {
                Ok(print_line(&scenarios_markdown())?)
            }
            None => run_sandbox(&self.settings),
        }
    }
}

fn run_sandbox(settings: &SettingsArgs) -> Result<(), ExitError> {
    let loaded = settings.load_for(Mode::Sandbox)?;
    run_until_shutdown(loaded, |config, shutdown, _telemetry| async move {
        let sandbox = Sandbox::bind(config.sandbox)
            .await
            .map_err(|error| ExitError::failure(format!("cannot start: {error}")))?;
        tracing::info!(address = %sandbox.local_addr(), "the sandbox is at {}", sandbox.base_url());
        let result = sandbox.run(shutdown.cancelled_owned()).await;
        result.map_err(|error| ExitError::failure(format!("sandbox failed: {error}")))
    })
}
