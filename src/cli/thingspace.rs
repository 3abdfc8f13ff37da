//! `thingspace`: manages the gateway's connection to ThingSpace through the admin socket.

use clap::{Args, Subcommand};
use reqwest::Method;

use crate::cli::{
    admin_client::AdminClient, exit::ExitError, output::print_line, settings_args::SettingsArgs,
};

/// Arguments of `thingspace`.
#[derive(Debug, Args)]
pub struct ThingspaceCommand {
    #[command(subcommand)]
    command: ThingspaceSubcommand,
}

#[derive(Debug, Subcommand)]
enum ThingspaceSubcommand {
    /// Reset the log-in lock-out, so that the gateway uses credentials again that ThingSpace refused
    /// twice
    ResetLockout {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

// === impl ThingspaceCommand ===

impl ThingspaceCommand {
    /// Runs the subcommand on the local gateway and prints its result as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the command failed. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let ThingspaceSubcommand::ResetLockout { settings } = self.command;
        let client = AdminClient::new(&settings)?;
        let response = client.send(Method::POST, "/thingspace/reset-lockout")?;
        Ok(print_line(&response.to_string())?)
    }
}
