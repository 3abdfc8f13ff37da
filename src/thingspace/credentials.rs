//! The credentials of the gateway at ThingSpace, and the store of their failed log-ins.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use crate::config::{Secret, ThingSpaceConfig};

/// Weight of failed log-ins at which the gateway stops using its credentials. ThingSpace locks the
/// user after five in a row (see docs/thingspace-facts.md, section 2). Two refusals, or four
/// unfinished log-ins, leave attempts for other clients with the same user.
const LOCK_OUT_WEIGHT: u32 = 4;
/// Weight of a refused log-in.
const REFUSED_WEIGHT: u32 = 2;
/// Weight of a log-in whose outcome a crash hid. It was probably accepted: two crashes must not lock out
/// valid credentials.
const UNFINISHED_WEIGHT: u32 = 1;

/// Loads the credentials before each log-in, so that rotated secrets need no restart.
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// Loads the credentials. Must not block for long. Clients of the gateway receive the error: one line
    /// without the secret.
    fn load(&self) -> Result<ThingSpaceCredentials, String>;
}

/// Stores the failed log-ins of each set of credentials. They must survive restarts: ThingSpace locks the
/// account after five in a row. An error is one line with the reason.
#[async_trait]
pub trait FailedLoginStore: Send + Sync {
    /// Returns the failed log-ins of these credentials since the last successful one.
    async fn load(&self, credentials: &ThingSpaceCredentials) -> Result<FailedLogins, String>;

    /// Replaces the failed log-ins of these credentials.
    async fn store(
        &self,
        credentials: &ThingSpaceCredentials,
        failed: FailedLogins,
    ) -> Result<(), String>;
}

/// The credentials of an application and its UWS user.
#[derive(Debug, Clone)]
pub struct ThingSpaceCredentials {
    /// The key of the application.
    pub app_key: SecretString,
    /// The secret of the application.
    pub app_secret: SecretString,
    /// The UWS user of the session, which is not the user of the portal.
    pub uws_username: SecretString,
    /// The password of the UWS user.
    pub uws_password: SecretString,
}

impl CredentialSource for ThingSpaceConfig {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let load = |key: &str, secret: &Option<Secret>| {
            let secret = secret.as_ref().ok_or(format!("{key} is not set"))?;
            secret.load().map_err(|error| format!("{key}: {error}"))
        };
        Ok(ThingSpaceCredentials {
            app_key: load("thingspace.app_key", &self.app_key)?,
            app_secret: load("thingspace.app_secret", &self.app_secret)?,
            uws_username: load("thingspace.uws_username", &self.uws_username)?,
            uws_password: load("thingspace.uws_password", &self.uws_password)?,
        })
    }
}

impl ThingSpaceCredentials {
    /// Returns the four values, to compare or to redact them.
    pub fn secret_values(&self) -> impl Iterator<Item = &str> {
        [&self.app_key, &self.app_secret, &self.uws_username, &self.uws_password]
            .into_iter()
            .map(|secret| secret.expose_secret())
    }
}

/// Consecutive failed log-ins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailedLogins {
    /// Log-ins that ThingSpace refused.
    pub refused: u8,
    /// Log-ins without a known outcome: the process ended before it stored one.
    pub unfinished: u8,
    /// Time since the latest refusal; `None` if the retry interval has passed.
    pub since_refused: Option<Duration>,
}

impl FailedLogins {
    /// True if the gateway must not use the credentials again.
    pub(super) fn is_locked_out(self) -> bool {
        let weight = u32::from(self.refused) * REFUSED_WEIGHT
            + u32::from(self.unfinished) * UNFINISHED_WEIGHT;
        weight >= LOCK_OUT_WEIGHT
    }
}
