//! Who may store a callback.

use std::net::IpAddr;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::{
    answer::Refusal,
    settings::{AllowMode, Pair, SecretSource, Settings},
    source,
};
use crate::domain::{callback::Callback, newtypes::AccountName};

/// Judges requests by their path, source and password.
pub(super) struct Gate {
    settings: Settings,
}

/// What the path proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathProof {
    /// It has the secret.
    Shown,
    /// It has none though one is set: the password must prove it.
    Missing,
    /// No secret is set.
    NotAsked,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) address: Option<IpAddr>,
    /// Whether that is one of the addresses that callbacks come from.
    pub(super) listed: bool,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Where a request comes from. An address that the proxies do not tell is
    /// not listed.
    pub(super) fn source(&self, peer: IpAddr, headers: &HeaderMap) -> Source {
        let address = source::address(peer, headers, self.settings.trusted_hops);
        let networks = &self.settings.allow_cidrs;
        let listed = networks.is_empty()
            || address.is_some_and(|address| networks.iter().any(|net| net.contains(&address)));
        Source { address, listed }
    }

    /// Judges what is known before the body is read.
    pub(super) fn at_arrival(
        &self,
        presented: Option<&str>,
        source: Source,
    ) -> Result<PathProof, Refusal> {
        let proof = match (&self.settings.path_secret, presented) {
            (None, _) => PathProof::NotAsked,
            (Some(_), None) => PathProof::Missing,
            (Some(secret), Some(presented)) if same(&secret.read(), presented) => PathProof::Shown,
            (Some(_), Some(_)) => return Err(Refusal::WrongPathSecret),
        };
        if !source.listed && self.settings.allow_mode == AllowMode::Enforce {
            return Err(Refusal::Forbidden);
        }
        Ok(proof)
    }

    /// Judges a callback by the pair in it.
    pub(super) fn with_body(
        &self,
        service: &str,
        proof: PathProof,
        callback: &Callback,
    ) -> Result<(), Refusal> {
        let presented = callback.username.is_some() || callback.password.is_some();
        if presented && self.has_right_pair(callback) {
            return Ok(());
        }
        let accepted = self.takes(service, proof, presented);
        accepted.then_some(()).ok_or(Refusal::Unauthorized)
    }

    /// Whether a callback will do without the right pair.
    pub(super) fn takes(&self, service: &str, proof: PathProof, presented: bool) -> bool {
        match proof {
            PathProof::Missing => false,
            _ if !self.asks_for_a_pair() => true,
            // The eSIM page's sample has no pair: where none is required, an
            // absent one will do, but not a wrong one.
            _ => !presented && !self.is_required(service),
        }
    }

    /// What to say about a body that cannot be read, and so proves nothing.
    pub(super) fn unreadable(&self, proof: PathProof) -> Refusal {
        if proof == PathProof::Missing && !self.asks_for_a_pair() {
            Refusal::Unauthorized
        } else {
            Refusal::Malformed
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
        secret.is_some_and(|secret| same(&secret.read(), name))
    }

    /// The pair that is registered, and the one before it.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &Pair> {
        [&self.settings.current, &self.settings.previous]
            .into_iter()
            .flatten()
    }

    fn asks_for_a_pair(&self) -> bool {
        self.pairs().next().is_some()
    }

    /// Whether a service's callbacks must carry the pair. The sender picks the
    /// name, so one that is not known may not be a way around it.
    fn is_required(&self, service: &str) -> bool {
        let is = |name: &str| name.eq_ignore_ascii_case(service);
        let is_listed = self.settings.require_password.iter().any(|name| is(name));
        is_listed || !(is("CarrierService") || is("DeviceProfileService"))
    }

    fn has_right_pair(&self, callback: &Callback) -> bool {
        // All pairs are compared in full, so that time tells nothing.
        self.pairs().fold(false, |right, pair| {
            let username = is(&*pair.username, callback.username.as_ref());
            let password = is(&*pair.password, callback.password.as_ref());
            right | (username & password)
        })
    }
}

fn is(expected: &dyn SecretSource, presented: Option<&SecretString>) -> bool {
    let presented = presented.map_or("", |presented| presented.expose_secret());
    same(&expected.read(), presented)
}

/// Compares digests, so that not even the length can be measured.
fn same(expected: &SecretString, presented: &str) -> bool {
    let expected = digest(&SHA256, expected.expose_secret().as_bytes());
    let presented = digest(&SHA256, presented.as_bytes());
    verify_slices_are_equal(expected.as_ref(), presented.as_ref()).is_ok()
}
