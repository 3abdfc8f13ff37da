//! The settings of the ThingSpace client.

use std::{num::NonZeroU32, sync::Arc};

use crate::{
    config::{Config, Secret, ThingSpaceConfig},
    operations::WireSettings,
    thingspace::{CredentialSource, FailedLoginStore, ThingSpaceCredentials, ThingSpaceSettings},
};

/// Loads the four credentials at each log-in.
#[derive(Debug)]
struct CredentialsProvider(ThingSpaceConfig);

/// Returns the settings of the ThingSpace client.
pub(super) fn thingspace_settings(
    config: &Config,
    failed_logins: Arc<dyn FailedLoginStore>,
) -> ThingSpaceSettings {
    let thingspace = &config.thingspace;
    let per_minute = |limit| NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
    ThingSpaceSettings {
        base_url: thingspace.base_url.clone(),
        wire: WireSettings { five_g_bi_http_method: thingspace.five_g_bi_http_method },
        request_timeout: thingspace.request_timeout,
        credentials: Arc::new(CredentialsProvider(thingspace.clone())),
        failed_logins,
        changes_per_minute: per_minute(thingspace.changes_per_minute),
        lookups_per_minute: per_minute(thingspace.lookups_per_minute),
    }
}

impl CredentialSource for CredentialsProvider {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let load = |key: &str, secret: &Option<Secret>| {
            let secret = secret.as_ref().ok_or(format!("{key} is not set"))?;
            secret.load().map_err(|error| format!("{key}: {error}"))
        };
        Ok(ThingSpaceCredentials {
            app_key: load("thingspace.app_key", &self.0.app_key)?,
            app_secret: load("thingspace.app_secret", &self.0.app_secret)?,
            uws_username: load("thingspace.uws_username", &self.0.uws_username)?,
            uws_password: load("thingspace.uws_password", &self.0.uws_password)?,
        })
    }
}
