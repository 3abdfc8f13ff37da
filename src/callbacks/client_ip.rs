//! The address of a client behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

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
