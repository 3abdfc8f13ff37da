//! `quarantine`: manages quarantined callbacks through the admin socket.

use clap::{ArgGroup, Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use crate::cli::{
    admin_client::AdminClient, exit::ExitError, output::print_line, settings_args::SettingsArgs,
};

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
pub struct QuarantineCommand {
    #[command(subcommand)]
    command: QuarantineSubcommand,
}

#[derive(Debug, Subcommand)]
enum QuarantineSubcommand {
    /// List the quarantined callbacks, one JSON object per line
    List {
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Show a quarantined callback with its body
    Show(OneCallback),
    /// Process a quarantined callback again with the current settings
    Replay(Replay),
    /// Delete a quarantined callback
    Drop(OneCallback),
}

#[derive(Debug, Args)]
struct OneCallback {
    /// Id of the callback, as `list` shows it
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("selection").args(["id", "all"]).required(true)))]
struct Replay {
    /// Id of the callback, as `list` shows it
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
    /// All quarantined callbacks
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

// === impl QuarantineCommand ===

impl QuarantineCommand {
    /// Runs the subcommand on the local gateway and prints its result as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the command failed. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let (settings, method, path) = match self.command {
            QuarantineSubcommand::List { settings } => return list(&settings),
            QuarantineSubcommand::Show(OneCallback { id, settings }) => {
                (settings, Method::GET, format!("/quarantine/{id}"))
            }
            QuarantineSubcommand::Drop(OneCallback { id, settings }) => {
                (settings, Method::DELETE, format!("/quarantine/{id}"))
            }
            QuarantineSubcommand::Replay(Replay { id, settings, .. }) => {
                let path = match id {
                    Some(id) => format!("/quarantine/{id}/replay"),
                    None => "/quarantine/replay".to_owned(),
                };
                (settings, Method::POST, path)
            }
        };
        let response = AdminClient::new(&settings)?.send(method, &path)?;
        Ok(print_line(&response.to_string())?)
    }
}

/// Prints all pages of the list.
fn list(settings: &SettingsArgs) -> Result<(), ExitError> {
    let client = AdminClient::new(settings)?;
    let mut last_id = Some(0);
    while let Some(after) = last_id {
        let page = client.send(Method::GET, &format!("/quarantine/after/{after}"))?;
        let callbacks = page.get("quarantine").and_then(Value::as_array);
        let callbacks = callbacks.map(Vec::as_slice).unwrap_or_default();
        for callback in callbacks {
            print_line(&callback.to_string())?;
        }
        let id = |callback: &Value| callback.get("id")?.as_u64();
        last_id = callbacks.last().and_then(id);
    }
    Ok(())
}
