//! `changes`: pauses and resumes the changes of the local gateway.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{
        exit::ExitError, operator_client::OperatorClient, output::print_line,
        settings_args::SettingsArgs,
    },
    domain::clock::Timestamp,
    proto,
};

/// Arguments of `changes`.
#[derive(Debug, Args)]
pub struct ChangesCommand {
    #[command(subcommand)]
    command: ChangesSubcommand,
}

#[derive(Debug, Subcommand)]
enum ChangesSubcommand {
    /// Stop sending changes, until `resume`; results are still received
    Pause {
        /// Pause only the changes of this account
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// Reason, for other operators
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Send changes again
    Resume {
        /// End the pause of this account
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

// === impl ChangesCommand ===

impl ChangesCommand {
    /// Runs the subcommand on the local gateway and prints its result as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the command failed. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let printed = match self.command {
            ChangesSubcommand::Pause { account, reason, settings } => {
                let account_name = account.unwrap_or_default();
                let request = proto::PauseChangesRequest { account_name, reason };
                let response = OperatorClient::new(&settings)?
                    .call(|mut client| async move { client.pause_changes(request).await })?;
                pause_json(&response.pause.unwrap_or_default())
            }
            ChangesSubcommand::Resume { account, settings } => {
                let account_name = account.unwrap_or_default();
                let request = proto::ResumeChangesRequest { account_name };
                let response = OperatorClient::new(&settings)?
                    .call(|mut client| async move { client.resume_changes(request).await })?;
                json!({ "resumed": response.resumed })
            }
        };
        Ok(print_line(&printed.to_string())?)
    }
}

/// Returns a pause as JSON; without an account, it concerns all accounts.
pub(super) fn pause_json(pause: &proto::ChangePause) -> Value {
    let pause_time = pause.pause_time.and_then(|time| Timestamp::try_from(time).ok());
    json!({
        "account": Some(&pause.account_name).filter(|name| !name.is_empty()),
        "reason": pause.reason,
        "paused_by": pause.paused_by,
        "pause_time_us": pause_time.map(Timestamp::as_micros),
    })
}
