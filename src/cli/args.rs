//! The command tree.

use std::time::Duration;

use clap::{Parser, Subcommand};
use thingspace_settings::{DurationRange, Kind as _};

use crate::cli::{
    audit::AuditCommand, changes::ChangesCommand, config::ConfigCommand, demo::DemoCommand,
    healthcheck::HealthcheckCommand, journal::JournalCommand, log::LogCommand,
    policy::PolicyCommand, quarantine::QuarantineCommand, sandbox::SandboxCommand,
    serve::ServeCommand, status::StatusCommand, thingspace::ThingspaceCommand,
};

/// A gRPC gateway to Verizon's ThingSpace Connectivity Management API
#[derive(Debug, Parser)]
#[command(name = "thingspace-gateway", version)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(ServeCommand),
    /// Run a simulated ThingSpace
    Sandbox(SandboxCommand),
    /// Change some plans on a gateway with a sandbox and show the results
    Demo(DemoCommand),
    /// Check whether a gateway serves: exit code 0 if it does, otherwise 1
    Healthcheck(HealthcheckCommand),
    /// Show the state of the local gateway
    Status(StatusCommand),
    /// Pause and resume the changes of the local gateway
    Changes(ChangesCommand),
    /// Manage the quarantined callbacks of the local gateway
    Quarantine(QuarantineCommand),
    /// Manage the connection of the local gateway to ThingSpace
    Thingspace(ThingspaceCommand),
    /// Change the log filter of the local gateway
    Log(LogCommand),
    /// Back up, check, restore, move or repair a journal
    Journal(JournalCommand),
    /// Show or export the audit log
    Audit(AuditCommand),
    /// Check, show or document the settings
    Config(ConfigCommand),
    /// Check, explain or document the policy file
    Policy(PolicyCommand),
}

/// Returns the parser of a duration from 1 s to `max`.
pub(super) fn duration_up_to(
    max: &'static str,
) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let range = DurationRange { min: "1s", max };
        let parsed = range.parse(text);
        parsed.ok_or_else(|| format!("expected a duration from 1s to {max}, such as 10m"))
    }
}

#[cfg(test)]
mod tests;
