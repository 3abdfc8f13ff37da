//! What the client has to be told.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use async_trait::async_trait;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::FiveGBiHttpMethod;

/// What the client has to be told.
#[derive(Clone)]
pub struct ThingSpaceSettings {
    /// Where ThingSpace is: `http` or `https`, with or without a path, such as
    /// `https://thingspace.verizon.com/api`. Without user name, query and
    /// fragment.
    pub base_url: Url,
    /// HTTP method of the 5G Business Internet plan change.
    pub five_g_bi_http_method: FiveGBiHttpMethod,
    /// How long one request may take in all. Making the connection may take a
    /// half of it, and 10 s at most.
    pub request_timeout: Duration,
    /// Where the credentials come from.
    pub credentials: Arc<dyn CredentialSource>,
    /// Where failed log-ins are stored.
    pub failed_logins: Arc<dyn FailedLoginStore>,
    /// Plan changes that are sent a minute, at most.
    pub changes_per_minute: NonZeroU32,
    /// Questions that are asked a minute, at most.
    pub lookups_per_minute: NonZeroU32,
}

/// Stores failed log-ins for each set of credentials: durably, since five in a row lock the account
/// ("Start Connectivity Management Session"), however often the gateway was restarted between them.
#[async_trait]
pub trait FailedLoginStore: Send + Sync {
    /// The failed log-ins of these credentials since they were last accepted.
    ///
    /// # Errors
    ///
    /// One line that says why they cannot be loaded.
    async fn load(&self, credentials: &ThingSpaceCredentials) -> Result<FailedLogins, String>;

    /// Replaces what is stored.
    ///
    /// # Errors
    ///
    /// One line that says why it cannot be stored.
    async fn store(
        &self,
        credentials: &ThingSpaceCredentials,
        failed: FailedLogins,
    ) -> Result<(), String>;
}

/// Failed log-ins in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailedLogins {
    /// Log-ins that ThingSpace refused.
    pub refused: u8,
    /// Log-ins without a known end: the process ended before the answer was stored.
    pub unfinished: u8,
    /// Time since the latest refusal; `None` when it is long ago.
    pub since_refused: Option<Duration>,
}

/// Where the credentials come from. Asked at each log-in, so that a rotated
/// secret is used without a restart.
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// Reads them now. Must not wait for long.
    ///
    /// # Errors
    ///
    /// One line that says what cannot be read and why; never the secret. It is
    /// shown to callers.
    fn load(&self) -> Result<ThingSpaceCredentials, String>;
}

/// What the gateway logs in with.
#[derive(Debug, Clone)]
pub struct ThingSpaceCredentials {
    /// The application's key ("Getting Credentials").
    pub app_key: SecretString,
    /// The application's secret.
    pub app_secret: SecretString,
    /// The UWS user of the session; not the user of the portal.
    pub uws_username: SecretString,
    /// That user's password.
    pub uws_password: SecretString,
}

/// Why no client could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientBuildError {
    /// The base URL cannot be one.
    #[error(
        "thingspace.base_url must be an http or https URL without user name, query and fragment"
    )]
    BaseUrl,
    /// The HTTP client could not be set up; mostly, because of the system's
    /// certificates.
    #[error("the HTTP client could not be set up: {0}")]
    Client(String),
}

// === impl Settings ===

impl fmt::Debug for ThingSpaceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The host only: somebody may have put a password into the URL.
        f.debug_struct("Settings")
            .field("host", &self.base_url.host_str())
            .field("five_g_bi_http_method", &self.five_g_bi_http_method)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

// === impl Credentials ===

impl ThingSpaceCredentials {
    /// Whether both would log in alike.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.secret_values().eq(other.secret_values())
    }

    /// All four, none of which must ever be shown.
    pub fn secret_values(&self) -> impl Iterator<Item = &str> {
        [
            &self.app_key,
            &self.app_secret,
            &self.uws_username,
            &self.uws_password,
        ]
        .into_iter()
        .map(|secret| secret.expose_secret())
    }
}
