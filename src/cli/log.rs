//! `log`: changes the log filter of the local gateway.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{
        args::duration_up_to, exit::ExitError, operator_client::OperatorClient, output::print_line,
        settings_args::SettingsArgs,
    },
    proto,
};

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct LogCommand {
    #[command(subcommand)]
    command: LogSubcommand,
}

#[derive(Debug, Subcommand)]
enum LogSubcommand {
    /// Log other lines for some time
    Set {
        /// Directives of tracing's `EnvFilter`, such as `info,thingspace_gateway=debug`
        filter: String,
        /// Time after which the configured filter applies again
        #[arg(long = "for", value_name = "DURATION", default_value = "15m", value_parser = duration_up_to("7d"))]
        duration: Duration,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Apply the configured filter, `telemetry.log_filter`, again
    Reset {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

// === impl LogCommand ===

impl LogCommand {
    /// Runs the subcommand on the local gateway and prints its result as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the command failed. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let (filter, duration, settings) = match self.command {
            LogSubcommand::Set { filter, duration, settings } => (filter, Some(duration), settings),
            LogSubcommand::Reset { settings } => (String::new(), None, settings),
        };
        let duration = duration.and_then(|duration| duration.try_into().ok());
        let request = proto::SetLogFilterRequest { filter, duration };
        let response = OperatorClient::new(&settings)?
            .call(|mut client| async move { client.set_log_filter(request).await })?;
        Ok(print_line(&json!({ "filter": response.filter }).to_string())?)
    }
}
