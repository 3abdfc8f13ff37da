//! Authentication of callbacks by path secret, client address and credentials.

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use http::HeaderMap;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    background::{FileReloader, ReloadingCredentials, ReloadingSecret},
    callbacks::client_ip,
    config::{AllowMode, CallbacksConfig},
    connections::ShareKey,
    domain::{
        evidence::ResultService,
        newtypes::{AccountName, CallbackService},
        result::Callback,
    },
    telemetry::RejectionReason,
};

/// Maximum length of a service name in the log.
const MAX_LOGGED_SERVICE: usize = 40;

/// Decides which callbacks are accepted.
pub(super) struct Authenticator {
    path_secret: Option<Arc<ReloadingSecret>>,
    credentials: Option<ReloadingCredentials>,
    /// ThingSpace was observed to send these for 14 minutes after a change.
    previous_credentials: Option<ReloadingCredentials>,
    require_password: Vec<CallbackService>,
    allow_cidrs: Vec<IpNet>,
    allow_mode: AllowMode,
    trusted_hops: u8,
}

/// Result of the authentication by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathAuth {
    /// The path has the correct secret.
    Verified,
    /// The path has no secret, although one is configured: the credentials must be correct.
    Missing,
    /// No path secret is configured.
    NotRequired,
}

/// Address of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress {
    /// `None` if the trusted proxies did not report it.
    pub(super) ip: Option<IpAddr>,
    /// True if `callbacks.allow_cidrs` allows the address.
    pub(super) is_allowed: bool,
    /// The share of the bytes of callbacks that the client has. `None` if `callbacks.allow_cidrs` lists the address.
    pub(super) share: Option<ShareKey>,
}

// === impl Authenticator ===

impl Authenticator {
    pub(super) fn new(callbacks: &CallbacksConfig, files: &mut FileReloader) -> Self {
        Self {
            credentials: files
                .credentials(callbacks.username.as_ref(), callbacks.password.as_ref()),
            previous_credentials: files.credentials(
                callbacks.previous_username.as_ref(),
                callbacks.previous_password.as_ref(),
            ),
            path_secret: callbacks.path_secret.as_ref().map(|secret| files.secret(secret)),
            require_password: callbacks.require_password.clone(),
            allow_cidrs: callbacks.allow_cidrs.clone(),
            allow_mode: callbacks.allow_mode,
            trusted_hops: callbacks.trusted_hops,
        }
    }

    /// Returns the address of the client. An unknown address counts as not allowed.
    pub(super) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let ip = client_ip::resolve(peer, headers, self.trusted_hops);
        let share = self.share(ip);
        ClientAddress { ip, is_allowed: self.allow_cidrs.is_empty() || share.is_none(), share }
    }

    /// Returns the share of the connections that a peer has. `None` if it is listed in `callbacks.allow_cidrs` or
    /// a proxy.
    pub(super) fn connection_share(&self, peer: IpAddr) -> Option<ShareKey> {
        if self.trusted_hops > 0 { None } else { self.share(Some(peer)) }
    }

    /// Returns the share of the clients with an address. `None` if `callbacks.allow_cidrs` lists it.
    fn share(&self, ip: Option<IpAddr>) -> Option<ShareKey> {
        match ip {
            Some(ip) if self.is_listed(ip) => None,
            _ if !self.allow_cidrs.is_empty() => Some(ShareKey::Unlisted),
            Some(ip) => Some(ShareKey::of_address(ip)),
            None => Some(ShareKey::Unknown),
        }
    }

    fn is_listed(&self, ip: IpAddr) -> bool {
        self.allow_cidrs.iter().any(|net| net.contains(&ip))
    }

    /// Checks client address and path secret, before the body is read. A client whose address is forbidden does not
    /// learn whether its path secret is correct.
    pub(super) fn authenticate_request(
        &self,
        presented: Option<&str>,
        client: ClientAddress,
    ) -> Result<PathAuth, RejectionReason> {
        if !client.is_allowed && self.allow_mode == AllowMode::Enforce {
            return Err(RejectionReason::Forbidden);
        }
        Ok(match (&self.path_secret, presented) {
            (None, _) => PathAuth::NotRequired,
            (Some(_), None) => PathAuth::Missing,
            (Some(secret), Some(presented)) if constant_time_eq(&secret.current(), presented) => {
                PathAuth::Verified
            }
            (Some(_), Some(_)) => return Err(RejectionReason::WrongPathSecret),
        })
    }

    /// Checks the credentials in the body.
    pub(super) fn authenticate_body(
        &self,
        service: &str,
        path_auth: PathAuth,
        callback: &Callback,
    ) -> Result<(), RejectionReason> {
        let has_credentials = callback.username.is_some() || callback.password.is_some();
        let is_valid = (has_credentials && self.has_valid_credentials(callback))
            || self.accepts_without_credentials(service, path_auth, has_credentials);
        if is_valid { Ok(()) } else { Err(RejectionReason::Unauthorized) }
    }

    /// Returns true if a callback without the correct credentials is accepted.
    pub(super) fn accepts_without_credentials(
        &self,
        service: &str,
        path_auth: PathAuth,
        has_credentials: bool,
    ) -> bool {
        match path_auth {
            PathAuth::Missing => false,
            _ if self.credentials.is_none() && self.previous_credentials.is_none() => true,
            // Verizon's sample of an eSIM callback has no credentials. Where they are optional, absent
            // ones are accepted, but wrong ones are not.
            _ => !has_credentials && !self.requires_credentials(service),
        }
    }

    /// Returns the reason to reject a malformed body, which proves nothing.
    pub(super) fn malformed_body_rejection(&self, path_auth: PathAuth) -> RejectionReason {
        match path_auth {
            PathAuth::Missing if self.accepted_credentials().next().is_none() => {
                RejectionReason::Unauthorized
            }
            _ => RejectionReason::Malformed,
        }
    }

    /// Returns the name of a service, or `-` if it must not be logged: it has not only letters or is the
    /// path secret.
    pub(super) fn loggable_service<'a>(&self, name: &'a str) -> &'a str {
        let is_plain =
            name.len() <= MAX_LOGGED_SERVICE && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if is_plain && !self.is_path_secret(name) { name } else { "-" }
    }

    /// Returns the name of an account, or `-` if there is none or it must not be logged.
    pub(super) fn loggable_account<'a>(&self, name: Option<&'a str>) -> &'a str {
        let is_loggable =
            |name: &&str| AccountName::parse(*name).is_ok() && !self.is_path_secret(name);
        name.filter(is_loggable).unwrap_or("-")
    }

    /// The secret can be in another segment of the path by mistake.
    fn is_path_secret(&self, name: &str) -> bool {
        let secret = self.path_secret.as_ref();
        secret.is_some_and(|secret| constant_time_eq(&secret.current(), name))
    }

    /// Returns the current and the previous credentials.
    pub(super) fn accepted_credentials(&self) -> impl Iterator<Item = &ReloadingCredentials> {
        [&self.credentials, &self.previous_credentials].into_iter().flatten()
    }

    /// Returns true if callbacks of a service must carry credentials. The sender chooses the name, so
    /// an unknown name must not avoid the check.
    fn requires_credentials(&self, service: &str) -> bool {
        let mut listed = self.require_password.iter();
        listed.any(|name| name.as_str().eq_ignore_ascii_case(service))
            || ResultService::from_name(service).is_none()
    }

    /// Compares all credentials in full, so that the duration reveals nothing.
    fn has_valid_credentials(&self, callback: &Callback) -> bool {
        let matches = |expected: &ReloadingSecret, presented: &Option<SecretString>| {
            let presented = presented.as_ref().map_or("", ExposeSecret::expose_secret);
            constant_time_eq(&expected.current(), presented)
        };
        self.accepted_credentials().fold(false, |is_valid, accepted| {
            let username = matches(&accepted.username, &callback.username);
            is_valid | (username & matches(&accepted.password, &callback.password))
        })
    }
}

/// Compares digests, so that the duration does not reveal the length either.
fn constant_time_eq(expected: &SecretString, presented: &str) -> bool {
    let expected = digest(&SHA256, expected.expose_secret().as_bytes());
    let presented = digest(&SHA256, presented.as_bytes());
    verify_slices_are_equal(expected.as_ref(), presented.as_ref()).is_ok()
}
