//! Ports that other hosts can reach, and unencrypted connections.

use thingspace_loopback::{is_loopback_ip, is_loopback_url};
use thingspace_settings::ConfigError;

use crate::config::settings::Config;

pub(super) fn check_callback_listener(config: &Config) -> Result<(), ConfigError> {
    let callbacks = &config.callbacks;
    let is_protected = callbacks.path_secret.is_some() || callbacks.password.is_some();
    if is_protected || callbacks.insecure || is_loopback_ip(callbacks.listen.ip()) {
        return Ok(());
    }
    let problem = format!(
        "got {}, which other hosts can reach, expected callbacks.path_secret or callbacks.password \
         with it, or callbacks.insecure = true",
        callbacks.listen
    );
    Err(config.error("callbacks.listen", &problem))
}

pub(super) fn check_auth_mode(config: &Config) -> Result<(), ConfigError> {
    let is_production = config.thingspace.is_production();
    if config.auth.mode.is_some() || !is_production || is_loopback_ip(config.grpc.listen.ip()) {
        return Ok(());
    }
    let problem = format!(
        "not set, expected an explicit `none`, because grpc.listen {} lets every client that can \
         reach it change real devices",
        config.grpc.listen
    );
    Err(config.error("auth.mode", &problem))
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) {
    let url = &config.thingspace.base_url;
    if url.scheme() == "http" && !is_loopback_url(url) {
        warnings.push(format!(
            "thingspace.base_url {url} is plain http: credentials are sent unencrypted"
        ));
    }
    if let Some(key) = config.set_keys().find(|key| key.starts_with("sandbox.")) {
        warnings.push(format!("{key} has no effect without a sandbox"));
    }
}
