//! Warnings about combinations of settings that are valid, but probably a mistake.

use std::ops::RangeInclusive;

use secrecy::{ExposeSecret as _, SecretString};
use thingspace_loopback::{is_loopback_ip, is_loopback_url};
use thingspace_settings::{Choice as _, ConfigError, Secret};
use url::Url;

use crate::{
    config::{
        mode::Mode,
        settings::{AllowMode, AuthMode, Config},
    },
    domain::evidence::ResultService,
};

/// Ports of callback URLs that ThingSpace calls ("Register Callback Listener").
const PORTS: [RangeInclusive<u16>; 5] =
    [80..=80, 443..=443, 9001..=9006, 50551..=50559, 28200..=28220];

/// Warnings of one line each.
///
/// # Errors
///
/// The file of a secret cannot be read.
pub(super) fn warnings(config: &Config, mode: Mode) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    if mode == Mode::Serve {
        check_serve(config, &mut warnings);
    }
    if mode != Mode::Sandbox {
        check_credentials(config, &mut warnings)?;
        check_registration(config, mode, &mut warnings);
        check_auth(config, &mut warnings);
        check_forwarding(config, &mut warnings)?;
        if config.journal.spool_dir.is_none() && config.is_set("journal.spool_max_bytes") {
            warn_no_effect(&mut warnings, "journal.spool_max_bytes", "journal.spool_dir");
        }
    }
    Ok(warnings)
}

fn check_serve(config: &Config, warnings: &mut Vec<String>) {
    let url = &config.thingspace.base_url;
    warn_if_plain_http(warnings, &format!("thingspace.base_url {url}"), url, "credentials are");
    if let Some(key) = config.set_keys().find(|key| key.starts_with("sandbox.")) {
        warn_no_effect(warnings, key, "a sandbox");
    }
    if config.journal.retention < config.changes.overdue_after {
        warnings.push(
            "journal.retention is shorter than changes.overdue_after: an idempotency key may expire \
             while results of its change can still arrive"
                .to_owned(),
        );
    }
}

fn check_credentials(config: &Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let callbacks = &config.callbacks;
    if callbacks.password.is_none() && config.is_set("callbacks.require_password") {
        warn_no_effect(warnings, "callbacks.require_password", "callbacks.password");
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
        warn_no_effect(warnings, "callbacks.allow_mode", "callbacks.allow_cidrs");
    }
    let uws = load_secret(config, "thingspace.uws_password", &config.thingspace.uws_password)?;
    let Some(uws) = uws else { return Ok(()) };
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

fn check_registration(config: &Config, mode: Mode, warnings: &mut Vec<String>) {
    let has_accounts = !config.thingspace.accounts.is_empty();
    let url = match &config.callbacks.public_url {
        Some(url) if has_accounts => url,
        Some(_) => return warn_no_effect(warnings, "callbacks.public_url", "thingspace.accounts"),
        None if has_accounts => {
            return warn_no_effect(warnings, "thingspace.accounts", "callbacks.public_url");
        }
        None => return,
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
    warn_if_plain_http(warnings, "callbacks.public_url", url, "path secret and password are");
}

fn check_auth(config: &Config, warnings: &mut Vec<String>) {
    let auth = &config.auth;
    for (prefix, mode) in [("auth.jwt_", AuthMode::Jwt), ("auth.mesh_", AuthMode::Mesh)] {
        if auth.accepts(mode) {
            continue;
        }
        if let Some(key) = config.set_keys().find(|key| key.starts_with(prefix)) {
            warn_no_effect(warnings, key, &format!("{} in auth.mode", mode.name()));
        }
    }
    let is_plaintext = config.grpc.tls_cert_file.is_none();
    let console = config.console.listen;
    let is_reachable = !is_loopback_ip(config.grpc.listen.ip())
        || console.is_some_and(|listen| !is_loopback_ip(listen.ip()));
    if auth.accepts(AuthMode::Jwt) && is_plaintext && is_reachable {
        warnings.push(
            "auth.mode = jwt without grpc.tls_cert_file: bearer tokens are sent unencrypted, unless \
             a proxy in front of the gateway ends TLS"
                .to_owned(),
        );
    }
}

fn check_forwarding(config: &Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    const KEY: &str = "callbacks.forward_url";
    let Some(template) = load_secret(config, KEY, &config.callbacks.forward_url)? else {
        for key in ["callbacks.forward_max_age", "callbacks.forward_max_waiting"] {
            if config.is_set(key) {
                warn_no_effect(warnings, key, KEY);
            }
        }
        return Ok(());
    };
    let url = template.expose_secret().replace("{service}", ResultService::Carrier.as_str());
    let url =
        Url::parse(&url).map_err(|_| config.error(KEY, "expected an `http` or `https` URL"))?;
    warn_if_plain_http(warnings, KEY, &url, "callbacks and callbacks.password are");
    if config.journal.retention < config.callbacks.forward_max_age {
        warnings.push(
            "journal.retention is shorter than callbacks.forward_max_age: callbacks that retention \
             removes are not forwarded"
                .to_owned(),
        );
    }
    Ok(())
}

fn warn_no_effect(warnings: &mut Vec<String>, key: &str, missing: &str) {
    warnings.push(format!("{key} has no effect without {missing}"));
}

fn warn_if_plain_http(warnings: &mut Vec<String>, key: &str, url: &Url, data_are: &str) {
    if url.scheme() == "http" && !is_loopback_url(url) {
        warnings.push(format!("{key} is plain http: {data_are} sent unencrypted"));
    }
}

fn load_secret(
    config: &Config,
    key: &str,
    secret: &Option<Secret>,
) -> Result<Option<SecretString>, ConfigError> {
    let value = secret.as_ref().map(Secret::load).transpose();
    value.map_err(|error| config.error(key, &error.to_string()))
}
