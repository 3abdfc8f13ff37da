//! Forwarding of callbacks.

use std::net::{IpAddr, SocketAddr};

use secrecy::ExposeSecret as _;
use thingspace_loopback::{is_loopback_name, is_loopback_url};
use thingspace_settings::ConfigError;
use url::{Host, Url};

use crate::{
    config::{check::credentials::load_secret, settings::Config},
    domain::newtypes::CallbackService,
};

const KEY: &str = "callbacks.forward_url";

/// The callback listener, by what an address may call it.
pub struct OwnListener {
    listen: SocketAddr,
    public: Option<Url>,
    /// What the machine calls itself.
    host: String,
}

/// A webhook that is this listener itself would get everything twice for nothing.
pub(super) fn check_webhook(config: &Config) -> Result<(), ConfigError> {
    let Some(url) = webhook_url(config)? else {
        return Ok(());
    };
    let own_listener = config.own_listener(config.callbacks.listen);
    if let Some(what) = own_listener.matched_setting(&url) {
        let fault = format!("it is {what}: expected the webhook of somebody else");
        return Err(config.error(KEY, &fault));
    }
    Ok(())
}

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
    let url = template
        .expose_secret()
        .replace("{service}", CallbackService::CARRIER);
    let url = Url::parse(&url);
    url.map(Some)
        .map_err(|_| config.error(KEY, "expected an `http` or `https` URL"))
}

impl Config {
    /// The callback listener, which listens there.
    pub fn own_listener(&self, listen: SocketAddr) -> OwnListener {
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        OwnListener {
            listen,
            public: self.callbacks.public_url.clone(),
            host,
        }
    }
}

// === impl Itself ===

impl OwnListener {
    /// What of the listener this is, as far as its name tells: nothing is resolved.
    pub fn matched_setting(&self, url: &Url) -> Option<&'static str> {
        if self.is_own_port(url) {
            return Some("callbacks.listen");
        }
        let public = self.public.as_ref();
        let below = public.is_some_and(|public| is_below(public, url));
        below.then_some("below callbacks.public_url")
    }

    fn is_own_port(&self, url: &Url) -> bool {
        // Port 0 picks any: no URL can name it.
        if self.listen.port() == 0 || url.port_or_known_default() != Some(self.listen.port()) {
            return false;
        }
        let own = self.listen.ip().to_canonical();
        let is_own_ip = |ip: IpAddr| {
            let ip = ip.to_canonical();
            ip == own || own.is_unspecified() && (ip.is_loopback() || ip.is_unspecified())
        };
        match url.host() {
            Some(Host::Ipv4(ip)) => is_own_ip(ip.into()),
            Some(Host::Ipv6(ip)) => is_own_ip(ip.into()),
            Some(Host::Domain(name)) if is_loopback_name(name) => {
                own.is_loopback() || own.is_unspecified()
            }
            Some(Host::Domain(name)) => !own.is_loopback() && self.is_own_name(name),
            None => false,
        }
    }

    /// The machine's name as it has it, or without its domain.
    fn is_own_name(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.');
        let short = self.host.split('.').next().unwrap_or_default();
        [self.host.as_str(), short]
            .iter()
            .any(|own| !own.is_empty() && own.eq_ignore_ascii_case(name))
    }
}

/// Whether this is one of the paths that the listener takes behind its public address. Others on the
/// same host may be anybody's.
fn is_below(public: &Url, url: &Url) -> bool {
    let same = public.origin() == url.origin();
    let rest = url.path().strip_prefix(public.path().trim_end_matches('/'));
    let ours = |rest: &str| rest.starts_with("/callbacks/") || rest.starts_with("/accounts/");
    same && rest.is_some_and(ours)
}
