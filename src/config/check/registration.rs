//! Registration of the callback URL.

use std::ops::RangeInclusive;

use thingspace_loopback::is_loopback_url;
use thingspace_settings::{Choice as _, ConfigError};

use crate::config::{choices::RegisterPolicy, mode::Mode, settings::Config};

/// Ports of callback URLs that ThingSpace calls ("Register Callback Listener").
const PORTS: [RangeInclusive<u16>; 5] =
    [80..=80, 443..=443, 9001..=9006, 50551..=50559, 28200..=28220];

pub(super) fn check_target(config: &Config) -> Result<(), ConfigError> {
    if config.callbacks.register == RegisterPolicy::Never {
        return Ok(());
    }
    if config.callbacks.public_url.is_none() {
        return Err(missing(config, "callbacks.public_url", "the URL to register"));
    }
    if config.thingspace.accounts.is_empty() {
        return Err(missing(config, "thingspace.accounts", "the accounts to register it for"));
    }
    Ok(())
}

pub(super) fn check_secret(config: &Config) -> Result<(), ConfigError> {
    let callbacks = &config.callbacks;
    let is_protected = callbacks.path_secret.is_some() || callbacks.password.is_some();
    if callbacks.register == RegisterPolicy::Never || is_protected || callbacks.insecure {
        return Ok(());
    }
    Err(missing(
        config,
        "callbacks.path_secret",
        "it, callbacks.password or callbacks.insecure = true",
    ))
}

fn missing(config: &Config, key: &str, expected: &str) -> ConfigError {
    let policy = config.callbacks.register.name();
    let problem = format!("not set, expected {expected} with callbacks.register = {policy}");
    config.error(key, &problem)
}

pub(super) fn warn(config: &Config, mode: Mode, warnings: &mut Vec<String>) {
    let has_accounts = !config.thingspace.accounts.is_empty();
    let url = match (&config.callbacks.public_url, has_accounts) {
        (None, false) => return,
        (None, true) => {
            let warning = "thingspace.accounts has no effect without callbacks.public_url";
            return warnings.push(warning.to_owned());
        }
        (Some(_), false) => {
            let warning = "callbacks.public_url has no effect without thingspace.accounts";
            return warnings.push(warning.to_owned());
        }
        (Some(url), true) => url,
    };
    // A sandbox calls any port, on the same host.
    if mode == Mode::ServeSandbox {
        return;
    }
    let port = url.port_or_known_default().unwrap_or_default();
    if !PORTS.iter().any(|range| range.contains(&port)) {
        let ports = PORTS.map(|range| match range.into_inner() {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        warnings.push(format!(
            "callbacks.public_url has port {port}, but ThingSpace calls only {}",
            ports.join(", ")
        ));
    }
    if url.scheme() == "http" && !is_loopback_url(url) {
        warnings.push(
            "callbacks.public_url is plain http: path secret and password are sent unencrypted"
                .to_owned(),
        );
    }
}
