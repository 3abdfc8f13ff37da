//! Forwarding of callbacks.

use secrecy::ExposeSecret as _;
use thingspace_loopback::is_loopback_url;
use thingspace_settings::ConfigError;
use url::Url;

use crate::{
    config::{check::credentials::load_secret, settings::Config},
    domain::evidence::ResultService,
};

const KEY: &str = "callbacks.forward_url";

pub(super) fn warn(config: &Config, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let Some(url) = webhook_url(config)? else {
        for key in ["callbacks.forward_max_age", "callbacks.forward_max_waiting"] {
            if config.is_set(key) {
                warnings.push(format!("{key} has no effect without {KEY}"));
            }
        }
        return Ok(());
    };
    if url.scheme() == "http" && !is_loopback_url(&url) {
        warnings.push(format!(
            "{KEY} is plain http: callbacks and callbacks.password are sent unencrypted"
        ));
    }
    if config.journal.retention < config.callbacks.forward_max_age {
        warnings.push(
            "journal.retention is shorter than callbacks.forward_max_age: callbacks that retention \
             removes are not forwarded"
                .to_owned(),
        );
    }
    Ok(())
}

/// The webhook's URL for one callback service.
fn webhook_url(config: &Config) -> Result<Option<Url>, ConfigError> {
    let template = load_secret(config, KEY, &config.callbacks.forward_url)?;
    let Some(template) = template else {
        return Ok(None);
    };
    let url = template.expose_secret().replace("{service}", ResultService::Carrier.as_str());
    let url = Url::parse(&url);
    url.map(Some).map_err(|_| config.error(KEY, "expected an `http` or `https` URL"))
}
