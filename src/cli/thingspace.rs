//! `thingspace`: manages the connection of the local gateway to ThingSpace.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{
        exit::ExitError, operator_client::OperatorClient, output::print_line,
        settings_args::SettingsArgs,
    },
    proto,
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
        let request = proto::ResetLockoutRequest {};
        OperatorClient::new(&settings)?
            .call(|mut client| async move { client.reset_lockout(request).await })?;
        Ok(print_line(&json!({ "reset": true }).to_string())?)
    }
}
