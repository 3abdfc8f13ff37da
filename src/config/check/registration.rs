//! What the listener guard needs.

use std::ops::RangeInclusive;

use thingspace_loopback::is_loopback_url;

use super::{Check, Config, Mode};
use crate::config::RegisterPolicy;

/// The ports that ThingSpace calls ("Register Callback Listener").
const PORTS: [RangeInclusive<u16>; 5] = [
    80..=80,
    443..=443,
    9001..=9006,
    50551..=50559,
    28200..=28220,
];

impl Config {
    /// What is to be registered must be known, and nobody else may know it.
    pub(super) fn check_registration(&self, mode: Mode) -> Check {
        let word = match self.callbacks.register {
            RegisterPolicy::Never => return Ok(()),
            RegisterPolicy::IfUnclaimed => "if_unclaimed",
            RegisterPolicy::Replace => "replace",
        };
        let missing = |key: &str, expected: &str| {
            let fault = format!("not set, expected {expected} with callbacks.register = {word}");
            Err(self.fault(key, &fault))
        };
        if self.callbacks.public_url.is_none() {
            return missing("callbacks.public_url", "the address to register");
        }
        if self.thingspace.accounts.is_empty() {
            return missing("thingspace.accounts", "the accounts to register it for");
        }
        let callbacks = &self.callbacks;
        let guarded = callbacks.path_secret.is_some() || callbacks.password.is_some();
        // A sandbox beside the gateway comes with a path secret.
        if guarded || callbacks.insecure || mode == Mode::ServeSandbox {
            return Ok(());
        }
        missing(
            "callbacks.path_secret",
            "it, callbacks.password or callbacks.insecure = true",
        )
    }

    pub(super) fn warn_about_registration(&self, mode: Mode, warnings: &mut Vec<String>) {
        let has_accounts = !self.thingspace.accounts.is_empty();
        let url = match (&self.callbacks.public_url, has_accounts) {
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
        // A sandbox calls any port and speaks to itself.
        if mode == Mode::ServeSandbox {
            return;
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if !PORTS.iter().any(|range| range.contains(&port)) {
            warnings.push(format!(
                "callbacks.public_url has port {port}, but ThingSpace calls 80, 443, 9001-9006, \
                 50551-50559 and 28200-28220 only"
            ));
        }
        if url.scheme() == "http" && !is_loopback_url(url) {
            warnings.push(
                "callbacks.public_url is plain http: path secret and password travel in clear"
                    .to_owned(),
            );
        }
    }
}
