//! `quarantine`: manages quarantined callbacks of the local gateway.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::{
        exit::ExitError, operator_client::OperatorClient, output::print_line,
        settings_args::SettingsArgs,
    },
    domain::clock::Timestamp,
    proto,
};

/// Number of callbacks in a page of the list.
const PAGE: i32 = 500;

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
        match self.command {
            QuarantineSubcommand::List { settings } => list(&settings),
            QuarantineSubcommand::Show(OneCallback { id, settings }) => show(id, &settings),
            QuarantineSubcommand::Drop(OneCallback { id, settings }) => drop_one(id, &settings),
            QuarantineSubcommand::Replay(replay) => replay.run(),
        }
    }
}

impl Replay {
    fn run(self) -> Result<(), ExitError> {
        let client = OperatorClient::new(&self.settings)?;
        let id = self.id.unwrap_or_default();
        let request = proto::ReplayQuarantinedCallbacksRequest { id, all: self.all };
        let replayed = client
            .call(|mut client| async move { client.replay_quarantined_callbacks(request).await })?;
        let proto::ReplayQuarantinedCallbacksResponse { stored, duplicates, still_unusable } =
            replayed;
        let printed = match self.id {
            Some(_) if duplicates > 0 => json!({ "stored": "duplicate" }),
            Some(_) => json!({ "stored": "new" }),
            None => json!({ "stored": stored, "still_unusable": still_unusable }),
        };
        Ok(print_line(&printed.to_string())?)
    }
}

/// Prints all pages of the list.
fn list(settings: &SettingsArgs) -> Result<(), ExitError> {
    let client = OperatorClient::new(settings)?;
    let mut last_id = Some(0);
    while let Some(after_id) = last_id {
        let request = proto::ListQuarantinedCallbacksRequest { after_id, page_size: PAGE };
        let page = client
            .call(|mut client| async move { client.list_quarantined_callbacks(request).await })?;
        for callback in &page.callbacks {
            print_line(&to_json(callback).to_string())?;
        }
        last_id = page.callbacks.last().map(|callback| callback.id);
    }
    Ok(())
}

fn show(id: u64, settings: &SettingsArgs) -> Result<(), ExitError> {
    let request = proto::GetQuarantinedCallbackRequest { id };
    let response = OperatorClient::new(settings)?
        .call(|mut client| async move { client.get_quarantined_callback(request).await })?;
    let callback = response.callback.unwrap_or_default();
    let mut shown = to_json(&callback);
    if let Some(members) = shown.as_object_mut() {
        members.insert("body".into(), String::from_utf8_lossy(&callback.body).into());
    }
    Ok(print_line(&shown.to_string())?)
}

fn drop_one(id: u64, settings: &SettingsArgs) -> Result<(), ExitError> {
    let request = proto::DropQuarantinedCallbackRequest { id };
    OperatorClient::new(settings)?
        .call(|mut client| async move { client.drop_quarantined_callback(request).await })?;
    Ok(print_line(&json!({ "dropped": id }).to_string())?)
}

fn to_json(callback: &proto::QuarantinedCallback) -> Value {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let receive_time = callback.receive_time.and_then(|time| Timestamp::try_from(time).ok());
    json!({
        "id": callback.id,
        "receive_time_us": receive_time.map(Timestamp::as_micros),
        "reason": callback.reason,
        "service": text(&callback.service),
        "account": text(&callback.account_name),
        "bytes": callback.body_bytes,
    })
}
