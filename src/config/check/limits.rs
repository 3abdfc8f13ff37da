//! Times and limits that depend on each other.

use thingspace_settings::{ConfigError, format_duration};

use crate::config::settings::Config;

pub(super) fn check_stream_age(config: &Config) -> Result<(), ConfigError> {
    let (age, max) = (config.grpc.max_stream_age, config.grpc.max_connection_age);
    if age < max {
        return Ok(());
    }
    let problem = format!(
        "got {}, expected less than grpc.max_connection_age ({})",
        format_duration(age),
        format_duration(max)
    );
    Err(config.error("grpc.max_stream_age", &problem))
}

/// A change with an unknown outcome keeps its idempotency key until it is closed.
pub(super) fn check_retention(config: &Config) -> Result<(), ConfigError> {
    let (retention, close_after) = (config.journal.retention, config.changes.close_after);
    if retention >= close_after {
        return Ok(());
    }
    let problem = format!(
        "got {}, expected at least changes.close_after ({}): the idempotency key of a change must \
         not expire before the change is closed",
        format_duration(retention),
        format_duration(close_after)
    );
    Err(config.error("journal.retention", &problem))
}

pub(super) fn check_devices(config: &Config) -> Result<(), ConfigError> {
    let per_request = config.changes.max_devices_per_request;
    at_least(
        config,
        ("limits.devices", config.limits.devices),
        ("changes.max_devices_per_request", usize::try_from(per_request).unwrap_or(usize::MAX)),
    )
}

pub(super) fn check_message_bytes(config: &Config) -> Result<(), ConfigError> {
    at_least(
        config,
        ("limits.message_bytes", config.limits.message_bytes),
        ("grpc.max_message_bytes", config.grpc.max_message_bytes),
    )
}

/// Checks that a limit admits the largest single call.
fn at_least(
    config: &Config,
    (key, limit): (&str, usize),
    (other, min): (&str, usize),
) -> Result<(), ConfigError> {
    if limit >= min {
        return Ok(());
    }
    let problem = format!("got {limit}, expected at least {other} ({min})");
    Err(config.error(key, &problem))
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    if config.journal.retention < config.changes.overdue_after {
        warnings.push(
            "journal.retention is shorter than changes.overdue_after: an idempotency key may expire \
             while results of its change can still arrive"
                .to_owned(),
        );
    }
}
