//! The clients that together have one share of a limit.

use std::net::{IpAddr, Ipv6Addr};

/// The clients that together have a share of a limit, so that the rest is left for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShareKey {
    /// All addresses that `callbacks.allow_cidrs` does not list.
    Unlisted,
    /// One address, or one /64 network of IPv6, without `callbacks.allow_cidrs`.
    Address(IpAddr),
    /// All clients whose address the trusted proxies do not report.
    Unknown,
}

impl ShareKey {
    /// Returns the share of an address.
    pub fn of_address(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            ip @ IpAddr::V4(_) => ip,
        })
    }
}

#[cfg(test)]
mod tests;
