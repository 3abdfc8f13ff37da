//! The address of a client behind trusted proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{Extensions, HeaderMap};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Address of the TCP peer. The server adds it to the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Returns the TCP peer of a request. Returns `0.0.0.0` if it did not come through the server.
pub(super) fn peer_ip(extensions: &Extensions) -> IpAddr {
    extensions.get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0)
}

/// Returns the client's address, or `None` if the proxies do not report it.
///
/// Each proxy appends its caller to `X-Forwarded-For`. With `hops` trusted proxies, the entry at that
/// position from the right is the last that a trusted proxy wrote. A client can forge all entries to
/// its left.
pub(super) fn resolve(peer: IpAddr, headers: &HeaderMap, hops: u8) -> Option<IpAddr> {
    let Some(skip) = hops.checked_sub(1) else {
        return Some(peer.to_canonical());
    };
    headers
        .get_all(FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or_default().rsplit(','))
        .nth(usize::from(skip))
        .and_then(|entry| parse(entry.trim()))
}

/// Parses an entry. Some proxies add the port or brackets.
fn parse(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .or_else(|_| entry.parse().map(|address: SocketAddr| address.ip()))
        .map(|address| address.to_canonical())
        .ok()
}

#[cfg(test)]
mod tests;
