//! Authentication: identifies the caller of each gRPC call by its credential.
//!
//! [`Authenticator`] joins three kinds of credentials: a bearer token (`jwt`), the header of a service mesh
//! (`mesh`), and a client certificate (`certificate`). Each yields an [`Identity`] with one or more
//! [`IdentityName`]s, which the policy maps to a caller. docs/access.md describes the rules.

mod authenticator;
mod certificate;
mod error;
mod jwt;
mod mesh;
mod name;

use std::sync::Arc;

pub use self::{
    authenticator::{Authenticator, Connection, SetupError},
    error::AuthenticationError,
    jwt::KeySetChanges,
    mesh::parse_forwarded_client_cert,
    name::{IdentityName, IdentityNames, InvalidName},
};
pub use crate::telemetry::{AuthFailureReason, AuthMethod};
use crate::{access::identity::jwt::KeyId, domain::clock::Timestamp};

/// The caller of a gRPC call, as its credential identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    names: IdentityNames,
    expires_at: Option<Timestamp>,
    credential: Credential,
}

/// A checked credential, with the data for a later check that it is still trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    /// The certificate of the connection.
    Certificate,
    /// A token that was signed with this key.
    Token(KeyId),
    MeshHeader,
}

impl Identity {
    /// The names of the caller. The first is the primary name.
    pub const fn names(&self) -> &IdentityNames {
        &self.names
    }

    /// The method that identified the caller.
    pub const fn method(&self) -> AuthMethod {
        match self.credential {
            Credential::Certificate => AuthMethod::Mtls,
            Credential::Token(_) => AuthMethod::Jwt,
            Credential::MeshHeader => AuthMethod::Mesh,
        }
    }

    /// The time from which on the credential is refused: for a certificate its `notAfter`, for a token its
    /// `exp` plus `auth.jwt_leeway`. `None` for a mesh's header, which is valid for one call.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// A result that names only the reason of a failure.
type Checked<T> = Result<T, AuthFailureReason>;
/// An identity that several calls share.
type SharedIdentity = Arc<Identity>;
