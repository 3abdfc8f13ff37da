//! What passing callbacks on needs.

use std::net::IpAddr;

use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::{Check, Config, is_loopback_host};

const KEY: &str = "callbacks.forward_url";

impl Config {
    /// A webhook that is this listener itself would get everything twice for nothing.
    pub(super) fn check_forwarding(&self, warnings: &mut Vec<String>) -> Check {
        let callbacks = &self.callbacks;
        let Some(template) = self.now(KEY, &callbacks.forward_url)? else {
            for key in ["callbacks.forward_max_age", "callbacks.forward_max_waiting"] {
                if self.is_set(key) {
                    warnings.push(format!("{key} has no effect without {KEY}"));
                }
            }
            return Ok(());
        };
        let filled = template
            .expose_secret()
            .replace("{service}", "CarrierService");
        let Ok(url) = Url::parse(&filled) else {
            return Err(self.fault(KEY, "expected an `http` or `https` URL"));
        };
        let itself = |what: &str| {
            let fault = format!("it is {what}: expected the webhook of somebody else");
            Err(self.fault(KEY, &fault))
        };
        if self.is_own_port(&url) {
            return itself("callbacks.listen");
        }
        let public = callbacks.public_url.as_ref();
        if public.is_some_and(|public| is_below(public, &url)) {
            return itself("below callbacks.public_url");
        }
        if url.scheme() == "http" && !is_loopback_host(&url) {
            warnings.push(format!(
                "{KEY} is plain http: callbacks and callbacks.password travel in clear"
            ));
        }
        if self.journal.retention < callbacks.forward_max_age {
            warnings.push(
                "journal.retention is shorter than callbacks.forward_max_age: what is removed from \
                 the journal is not passed on"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Whether this is the listener's own port on this machine, as far as its name tells.
    fn is_own_port(&self, url: &Url) -> bool {
        let listen = self.callbacks.listen;
        // Port 0 picks any: no URL can name it.
        if listen.port() == 0 || url.port_or_known_default() != Some(listen.port()) {
            return false;
        }
        let own = listen.ip().to_canonical();
        let takes = |ip: IpAddr| {
            let ip = ip.to_canonical();
            ip == own || own.is_unspecified() && (ip.is_loopback() || ip.is_unspecified())
        };
        match url.host() {
            Some(Host::Ipv4(ip)) => takes(ip.into()),
            Some(Host::Ipv6(ip)) => takes(ip.into()),
            Some(Host::Domain("localhost")) => own.is_loopback() || own.is_unspecified(),
            _ => false,
        }
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
