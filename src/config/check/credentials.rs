//! Credentials for ThingSpace, and those of callbacks.

use secrecy::{ExposeSecret as _, SecretString};
use thingspace_settings::{ConfigError, Secret};

use crate::{
    config::{choices::AllowMode, settings::Config},
    domain::evidence::ResultService,
};

const CREDENTIALS: [&str; 4] = [
    "thingspace.app_key",
    "thingspace.app_secret",
    "thingspace.uws_username",
    "thingspace.uws_password",
];

const PAIRS: [(&str, &str); 3] = [
    ("callbacks.username", "callbacks.password"),
    ("callbacks.previous_username", "callbacks.previous_password"),
    ("callbacks.tls_cert_file", "callbacks.tls_key_file"),
];

pub(super) fn require_credentials(config: &Config) -> Result<(), ConfigError> {
    match CREDENTIALS.iter().find(|key| !config.is_set(key)) {
        None => Ok(()),
        Some(key) => {
            let problem = format!(
                "not set, expected it or {key}_file (`serve --sandbox` runs without credentials)"
            );
            Err(config.error(key, &problem))
        }
    }
}

pub(super) fn reject_credentials(config: &Config) -> Result<(), ConfigError> {
    let mut keys = CREDENTIALS.iter().chain(&["thingspace.base_url"]);
    match keys.find(|key| config.is_set(key)) {
        None => Ok(()),
        Some(key) => Err(config.error(
            key,
            "set, expected unset with `serve --sandbox`, which calls only its own sandbox",
        )),
    }
}

pub(super) fn check_pairs(config: &Config) -> Result<(), ConfigError> {
    for (one, other) in PAIRS {
        let (set, missing) = match (config.is_set(one), config.is_set(other)) {
            (true, false) => (one, other),
            (false, true) => (other, one),
            _ => continue,
        };
        let problem = format!("set without {missing}, expected both or neither");
        return Err(config.error(set, &problem));
    }
    let callbacks = &config.callbacks;
    if callbacks.previous_username.is_some() && callbacks.username.is_none() {
        return Err(config.error(
            "callbacks.previous_username",
            "set without callbacks.username, expected the current credentials too",
        ));
    }
    Ok(())
}

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let callbacks = &config.callbacks;
    if callbacks.password.is_none() && config.is_set("callbacks.require_password") {
        warnings
            .push("callbacks.require_password has no effect without callbacks.password".to_owned());
    }
    let known = ResultService::ALL.map(ResultService::as_str);
    for service in &callbacks.require_password {
        if !known.contains(&service.as_str()) {
            let known = known.join(" and ");
            warnings.push(format!(
                "callbacks.require_password names {service}, but results come through {known}"
            ));
        }
    }
    if callbacks.allow_mode == AllowMode::Enforce && callbacks.allow_cidrs.is_empty() {
        warnings
            .push("callbacks.allow_mode has no effect without callbacks.allow_cidrs".to_owned());
    }
    warn_about_reused_password(config, warnings)
}

/// Warns if callbacks use the UWS password. ThingSpace rejects such a registration, and sends the
/// password unencrypted in the body of each callback.
fn warn_about_reused_password(
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let uws = load_secret(config, "thingspace.uws_password", &config.thingspace.uws_password)?;
    let Some(uws) = uws else { return Ok(()) };
    let callbacks = &config.callbacks;
    for (key, secret) in [
        ("callbacks.password", &callbacks.password),
        ("callbacks.previous_password", &callbacks.previous_password),
    ] {
        let is_equal = |s: SecretString| s.expose_secret() == uws.expose_secret();
        if load_secret(config, key, secret)?.is_some_and(is_equal) {
            warnings.push(format!(
                "{key} equals thingspace.uws_password: ThingSpace rejects the UWS credentials for \
                 callbacks; use others"
            ));
        }
    }
    Ok(())
}

pub(super) fn load_secret(
    config: &Config,
    key: &str,
    secret: &Option<Secret>,
) -> Result<Option<SecretString>, ConfigError> {
    let value = secret.as_ref().map(Secret::load).transpose();
    value.map_err(|error| config.error(key, &error.to_string()))
}
