//! The registration that should exist, and its comparison with the existing ones.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    config::{CallbacksConfig, Secret},
    domain::newtypes::AccountName,
    telemetry::RegistrationState,
    thingspace::ListenerRegistration,
};

/// The callback listener as it should be registered.
pub(super) struct DesiredListener {
    /// Prefix of the listener's paths. Has no user name, query or fragment.
    public_url: Url,
    /// Last segment of the listener's paths.
    path_secret: Option<SecretString>,
    /// User name and password.
    credentials: Option<(SecretString, SecretString)>,
}

impl DesiredListener {
    /// Reads the secrets from the settings. Returns the failed setting and the cause on error.
    pub(super) fn load(public_url: &Url, callbacks: &CallbacksConfig) -> Result<Self, String> {
        let load = |key: &str, secret: &Option<Secret>| {
            let loaded = secret.as_ref().map(Secret::load).transpose();
            loaded.map_err(|error| format!("{key}: {error}"))
        };
        let username = load("callbacks.username", &callbacks.username)?;
        let password = load("callbacks.password", &callbacks.password)?;
        Ok(Self {
            public_url: public_url.clone(),
            path_secret: load("callbacks.path_secret", &callbacks.path_secret)?,
            credentials: username.zip(password),
        })
    }

    /// Returns the registration. Its URL names the account, because the body of a callback does not.
    pub(super) fn registration(
        &self,
        account: &AccountName,
        service: &str,
    ) -> ListenerRegistration {
        let [mut url, _] = self.accepted_urls(account, service);
        if let Some(secret) = &self.path_secret {
            let path = format!("{}/{}", url.path(), secret.expose_secret());
            url.set_path(&path);
        }
        let (username, password) = self.credentials.clone().unzip();
        ListenerRegistration {
            service: service.to_owned(),
            url: String::from(url).into(),
            username,
            password,
        }
    }

    /// Returns the status of a service, and the registration that decides it.
    pub(super) fn evaluate<'l>(
        &self,
        account: &AccountName,
        service: &str,
        listed: &'l [ListenerRegistration],
    ) -> (RegistrationState, Option<&'l ListenerRegistration>) {
        let same = |one: &&ListenerRegistration| one.service.eq_ignore_ascii_case(service);
        let mut result = (RegistrationState::Missing, None);
        for one in listed.iter().filter(same) {
            if !self.matches_url(account, service, &one.url) {
                return (RegistrationState::OtherUrl, Some(one));
            }
            let state = if self.matches_credentials(one) {
                RegistrationState::Registered
            } else {
                RegistrationState::WrongCredentials
            };
            result = (state, Some(one));
        }
        result
    }

    /// Returns the URL with and without the account. The listener accepts both.
    fn accepted_urls(&self, account: &AccountName, service: &str) -> [Url; 2] {
        [format!("/accounts/{account}/callbacks/{service}"), format!("/callbacks/{service}")].map(
            |path| {
                let mut url = self.public_url.clone();
                url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
                url
            },
        )
    }

    fn matches_url(&self, account: &AccountName, service: &str, url: &SecretString) -> bool {
        // Parsing normalizes case and default ports.
        let Ok(url) = Url::parse(url.expose_secret()) else {
            return false;
        };
        self.accepted_urls(account, service).iter().any(|accepted| {
            let Some(rest) = url.as_str().strip_prefix(accepted.as_str()) else {
                return false;
            };
            match (&self.path_secret, rest.strip_prefix('/')) {
                (Some(secret), segment) => segment == Some(secret.expose_secret()),
                // The listener ignores the segment of the path secret.
                (None, Some(segment)) => !segment.is_empty() && !segment.contains(['/', '?', '#']),
                (None, None) => rest.is_empty(),
            }
        })
    }

    /// Compares the credentials. Without configured credentials, any registration matches.
    fn matches_credentials(&self, listed: &ListenerRegistration) -> bool {
        let Some((username, password)) = &self.credentials else {
            return true;
        };
        let same = |listed: &Option<SecretString>, expected: &SecretString| {
            let listed = listed.as_ref().map(ExposeSecret::expose_secret);
            listed == Some(expected.expose_secret())
        };
        same(&listed.username, username) && same(&listed.password, password)
    }
}

#[cfg(test)]
mod tests;
