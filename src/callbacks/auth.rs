//! Who may store a callback.

use std::net::IpAddr;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::{
    client_ip,
    response::CallbackRefusal,
    settings::{AllowMode, CallbackCredentials, CallbackSettings, SecretSource},
};
use crate::domain::{
    callback::Callback,
    newtypes::{AccountName, CallbackService},
};

/// Judges requests by their path, source and password.
pub(super) struct Authenticator {
    settings: CallbackSettings,
}

/// What the path proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathAuth {
    /// It has the secret.
    Verified,
    /// It has none though one is set: the password must prove it.
    Missing,
    /// No secret is set.
    NotRequired,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress {
    pub(super) ip: Option<IpAddr>,
    /// Whether that is one of the addresses that callbacks come from.
    pub(super) is_allowed: bool,
}

// === impl Gate ===

impl Authenticator {
    pub(super) fn new(settings: CallbackSettings) -> Self {
        Self { settings }
    }

    /// Where a request comes from. An address that the proxies do not tell is
    /// not listed.
    pub(super) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let address = client_ip::resolve(peer, headers, self.settings.trusted_hops);
        let networks = &self.settings.allow_cidrs;
        let listed = networks.is_empty()
            || address.is_some_and(|address| networks.iter().any(|net| net.contains(&address)));
        ClientAddress {
            ip: address,
            is_allowed: listed,
        }
    }

    /// Judges what is known before the body is read.
    pub(super) fn authenticate_request(
        &self,
        presented: Option<&str>,
        source: ClientAddress,
    ) -> Result<PathAuth, CallbackRefusal> {
        let proof = match (&self.settings.path_secret, presented) {
            (None, _) => PathAuth::NotRequired,
            (Some(_), None) => PathAuth::Missing,
            (Some(secret), Some(presented)) if constant_time_eq(&secret.current(), presented) => {
                PathAuth::Verified
            }
            (Some(_), Some(_)) => return Err(CallbackRefusal::WrongPathSecret),
        };
        if !source.is_allowed && self.settings.allow_mode == AllowMode::Enforce {
            return Err(CallbackRefusal::Forbidden);
        }
        Ok(proof)
    }

    /// Judges a callback by the pair in it.
    pub(super) fn authenticate_body(
        &self,
        service: &str,
        proof: PathAuth,
        callback: &Callback,
    ) -> Result<(), CallbackRefusal> {
        let presented = callback.username.is_some() || callback.password.is_some();
        if presented && self.has_valid_credentials(callback) {
            return Ok(());
        }
        let accepted = self.accepts_without_credentials(service, proof, presented);
        accepted.then_some(()).ok_or(CallbackRefusal::Unauthorized)
    }

    /// Whether a callback will do without the right pair.
    pub(super) fn accepts_without_credentials(
        &self,
        service: &str,
        proof: PathAuth,
        presented: bool,
    ) -> bool {
        match proof {
            PathAuth::Missing => false,
            _ if !self.has_credentials() => true,
            // The eSIM page's sample has no pair: where none is required, an
            // absent one will do, but not a wrong one.
            _ => !presented && !self.requires_credentials(service),
        }
    }

    /// What to say about a body that cannot be read, and so proves nothing.
    pub(super) fn malformed_body_refusal(&self, proof: PathAuth) -> CallbackRefusal {
        if proof == PathAuth::Missing && !self.has_credentials() {
            CallbackRefusal::Unauthorized
        } else {
            CallbackRefusal::Malformed
        }
    }

    /// A service's name if it may be logged: letters, as all known ones have.
    pub(super) fn loggable_service<'a>(&self, name: &'a str) -> Option<&'a str> {
        let plain = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        (plain && !self.is_path_secret(name)).then_some(name)
    }

    /// An account's name if it may be logged.
    pub(super) fn loggable_account<'a>(&self, name: &'a str) -> Option<&'a str> {
        let plain = AccountName::parse(name).is_ok();
        (plain && !self.is_path_secret(name)).then_some(name)
    }

    /// The secret may have been put into another part of the path by mistake.
    fn is_path_secret(&self, name: &str) -> bool {
        let secret = self.settings.path_secret.as_ref();
        secret.is_some_and(|secret| constant_time_eq(&secret.current(), name))
    }

    /// The pair that is registered, and the one before it.
    pub(super) fn accepted_credentials(&self) -> impl Iterator<Item = &CallbackCredentials> {
        [
            &self.settings.credentials,
            &self.settings.previous_credentials,
        ]
        .into_iter()
        .flatten()
    }

    fn has_credentials(&self) -> bool {
        self.accepted_credentials().next().is_some()
    }

    /// Whether a service's callbacks must carry the pair. The sender picks the
    /// name, so one that is not known may not be a way around it.
    fn requires_credentials(&self, service: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(service);
        let is_listed = self.settings.require_password.iter().any(|name| is(name));
        is_listed || !CallbackService::WITH_RESULTS.iter().any(|name| is(name))
    }

    fn has_valid_credentials(&self, callback: &Callback) -> bool {
        // All pairs are compared in full, so that time tells nothing.
        self.accepted_credentials().fold(false, |right, pair| {
            let username = matches_secret(&*pair.username, callback.username.as_ref());
            let password = matches_secret(&*pair.password, callback.password.as_ref());
            right | (username & password)
        })
    }
}

fn matches_secret(expected: &dyn SecretSource, presented: Option<&SecretString>) -> bool {
    let presented = presented.map_or("", |presented| presented.expose_secret());
    constant_time_eq(&expected.current(), presented)
}

/// Compares digests, so that not even the length can be measured.
fn constant_time_eq(expected: &SecretString, presented: &str) -> bool {
    let expected = digest(&SHA256, expected.expose_secret().as_bytes());
    let presented = digest(&SHA256, presented.as_bytes());
    verify_slices_are_equal(expected.as_ref(), presented.as_ref()).is_ok()
}
