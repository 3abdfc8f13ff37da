//! `status`: shows the state of the local gateway.

use clap::Args;
use prost_types::Timestamp as ProtoTimestamp;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        changes::pause_json, exit::ExitError, operator_client::OperatorClient, output::print_line,
        settings_args::SettingsArgs,
    },
    domain::clock::Timestamp,
    proto,
};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusCommand {
    #[command(flatten)]
    settings: SettingsArgs,
}

// === impl StatusCommand ===

impl StatusCommand {
    /// Prints the state of the local gateway as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the command failed. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let request = proto::GetStatusRequest {};
        let status = OperatorClient::new(&self.settings)?
            .call(|mut client| async move { client.get_status(request).await })?;
        let text = serde_json::to_string_pretty(&to_json(&status)).map_err(ExitError::failure)?;
        Ok(print_line(&text)?)
    }
}

fn to_json(status: &proto::GetStatusResponse) -> Value {
    let counts: Map<String, Value> = status
        .change_counts
        .iter()
        .map(|entry| {
            let name = entry.state().as_str_name().trim_start_matches("CHANGE_STATE_");
            (name.to_owned(), entry.count.into())
        })
        .collect();
    json!({
        "version": status.version,
        "serving": status.serving,
        "leader": status.leader,
        "changes": counts,
        "pauses": status.pauses.iter().map(pause_json).collect::<Vec<_>>(),
        "log_filter": status.log_filter,
        "log_filter_end_time_us": micros(status.log_filter_end_time),
        "login": status.login.map(|login| json!({
            "locked_out": login.locked_out,
            "failed_logins": login.failed_logins,
            "token_valid": login.token_valid,
            "session_open": login.session_open,
        })),
        "quarantine": status.quarantine.map(|quarantine| json!({
            "unreviewed": quarantine.unreviewed,
            "reviewed": quarantine.reviewed,
            "bytes": quarantine.bytes,
        })),
        "start_time_us": micros(status.start_time),
        "registrations": status.registrations.iter().map(registration_json).collect::<Vec<_>>(),
        "callbacks": callback_counts(status),
        "recent_callbacks": status.recent_callbacks.iter().map(callback_json).collect::<Vec<_>>(),
    })
}

fn micros(time: Option<ProtoTimestamp>) -> Option<i64> {
    time.and_then(|time| Timestamp::try_from(time).ok()).map(Timestamp::as_micros)
}

fn registration_json(registration: &proto::CallbackRegistration) -> Value {
    json!({
        "account": registration.account_name,
        "service": registration.service,
        "state": registration.state,
        "register_policy": registration.register_policy,
        "check_time_us": micros(registration.check_time),
        "last_error": registration.last_error,
    })
}

fn callback_counts(status: &proto::GetStatusResponse) -> Map<String, Value> {
    let counts = status.callback_counts.iter();
    counts.map(|entry| (entry.outcome.clone(), entry.count.into())).collect()
}

fn callback_json(callback: &proto::RecentCallback) -> Value {
    json!({
        "receive_time_us": micros(callback.receive_time),
        "service": callback.service,
        "account": callback.account_name,
        "outcome": callback.outcome,
        "reason": callback.reason,
        "quarantine_id": callback.quarantine_id,
    })
}
