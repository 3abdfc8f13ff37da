//! The webhook's URL and credentials.

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    background::file_reloader::{FileReloader, ReloadingSecret},
    config::CallbacksConfig,
};

/// The settings of the webhook. Their files are re-read.
pub(super) struct DestinationSettings {
    url: Arc<ReloadingSecret>,
    credentials: Option<(Arc<ReloadingSecret>, Arc<ReloadingSecret>)>,
}

/// URL and credentials of the webhook at one moment.
pub(super) struct Destination {
    /// May contain `{service}` and secrets.
    pub(super) url: Arc<SecretString>,
    /// User name and password for the body.
    pub(super) credentials: Option<(Arc<SecretString>, Arc<SecretString>)>,
}

// === impl DestinationSettings ===

impl DestinationSettings {
    /// Reads the settings. Returns `None` if `callbacks.forward_url` is not set.
    pub(super) fn load(callbacks: &CallbacksConfig, files: &mut FileReloader) -> Option<Self> {
        let url = files.secret(callbacks.forward_url.as_ref()?);
        let credentials = callbacks.username.as_ref().zip(callbacks.password.as_ref());
        let credentials = credentials
            .map(|(username, password)| (files.secret(username), files.secret(password)));
        Some(Self { url, credentials })
    }

    pub(super) fn current(&self) -> Destination {
        let credentials = self.credentials.as_ref();
        Destination {
            url: self.url.current(),
            credentials: credentials
                .map(|(username, password)| (username.current(), password.current())),
        }
    }
}

// === impl Destination ===

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
        let same_credentials = match (&self.credentials, &other.credentials) {
            (Some(one), Some(other)) => same(&one.0, &other.0) && same(&one.1, &other.1),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_credentials && same(&self.url, &other.url)
    }
}
