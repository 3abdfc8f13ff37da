//! The header of a service mesh. Its proxies end the TLS connection of the client, check its certificate,
//! and name it in a header. Everyone who can reach the gateway without a proxy can forge the header, so only
//! the addresses in `auth.mesh_trusted_cidrs` are believed.

mod forwarded_client_cert;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

pub use self::forwarded_client_cert::parse_forwarded_client_cert;
use crate::{
    access::identity::{
        Checked, Credential, Identity,
        name::{IdentityName, IdentityNames},
    },
    config::MeshHeader,
    telemetry::AuthFailureReason,
};

const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const LINKERD_CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");

/// Reads the header of a service mesh.
pub(super) struct MeshHeaderReader {
    header: MeshHeader,
    trusted: Vec<IpNet>,
}

impl MeshHeaderReader {
    /// Believes this header from proxies in these networks.
    pub(super) const fn new(header: MeshHeader, trusted: Vec<IpNet>) -> Self {
        Self { header, trusted }
    }

    /// Returns the client that the header names. `None` if there is no header, or if `peer`, the address of
    /// the TCP connection, is not trusted.
    pub(super) fn identify(&self, headers: &HeaderMap, peer: IpAddr) -> Checked<Option<Identity>> {
        if !self.trusts(peer) {
            return Ok(None);
        }
        let mut lines = headers.get_all(self.name()).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        let text = line.to_str().ok().filter(|_| lines.next().is_none());
        let text = text.ok_or(AuthFailureReason::MalformedHeader)?;
        let names = match self.header {
            MeshHeader::ForwardedClientCert => parse_forwarded_client_cert(text)?,
            MeshHeader::LinkerdClientId if text.is_empty() => {
                return Err(AuthFailureReason::NoName);
            }
            MeshHeader::LinkerdClientId => IdentityName::mesh(text)
                .map(IdentityNames::from)
                .map_err(|_| AuthFailureReason::MalformedHeader)?,
        };
        Ok(Some(Identity { names, expires_at: None, credential: Credential::MeshHeader }))
    }

    /// True if the proxy at this address is believed.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|network| network.contains(&peer))
    }

    const fn name(&self) -> HeaderName {
        match self.header {
            MeshHeader::ForwardedClientCert => FORWARDED_CLIENT_CERT,
            MeshHeader::LinkerdClientId => LINKERD_CLIENT_ID,
        }
    }
}

#[cfg(test)]
mod tests;
