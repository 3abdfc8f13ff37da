//! The definition of the loopback interface, for all settings, clients and the sandbox:
//!
//! - An IPv4 address in 127.0.0.0/8, also as an IPv4-mapped IPv6 address (`::ffff:127.0.0.1`).
//! - The IPv6 address `::1`.
//! - The name `localhost` and every name below it, in any case, with or without the trailing dot of the
//!   root (RFC 6761, section 6.3). Names are not resolved.
//!
//! The unspecified addresses `0.0.0.0` and `::` are not loopback: a socket bound to one of them can be
//! reached from other machines.

use std::net::IpAddr;

use url::{Host, Url};

/// True if an address is on the loopback interface.
pub fn is_loopback_ip(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// True if a host name stands for the loopback interface.
pub fn is_loopback_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit('.').next().unwrap_or(name);
    top.eq_ignore_ascii_case("localhost") && !name.starts_with('.')
}

/// True if a URL's host is on the loopback interface.
pub fn is_loopback_url(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_loopback_name(name),
        Some(Host::Ipv4(ip)) => is_loopback_ip(ip.into()),
        Some(Host::Ipv6(ip)) => is_loopback_ip(ip.into()),
        None => false,
    }
}

#[cfg(test)]
mod tests;
