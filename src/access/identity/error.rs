//! The error of a call whose caller cannot be identified.

use crate::telemetry::{AuthFailureReason, AuthMethod};

/// The caller cannot be identified. The message names the problem, and never repeats a part of
/// the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub struct AuthenticationError {
    /// The method whose credential was refused; [`AuthMethod::None`] if the call has no credential.
    pub method: AuthMethod,
    /// The part that is missing or wrong.
    pub reason: AuthFailureReason,
}

impl AuthenticationError {
    /// True if the same credential can be accepted later: the keys of the issuer are not known yet.
    pub const fn is_temporary(self) -> bool {
        matches!(self.reason, AuthFailureReason::KeysUnavailable)
    }

    const fn message(self) -> &'static str {
        use AuthFailureReason as Reason;
        match (self.method, self.reason) {
            (_, Reason::NoCredential) => "the call has none of the accepted credentials",
            (AuthMethod::Jwt, Reason::MalformedHeader) => {
                "expected exactly one header `authorization` with `Bearer` and a token"
            }
            (_, Reason::MalformedHeader) => "the client header of the service mesh is malformed",
            (_, Reason::MalformedToken) => {
                "the bearer token is not a JSON Web Token with valid claims of at most 8 KiB"
            }
            (_, Reason::Algorithm) => {
                "the algorithm of the bearer token is not accepted, or does not fit its key"
            }
            (_, Reason::UnknownKey) => "the bearer token names no known key of the issuer",
            (_, Reason::KeysUnavailable) => "the keys of the issuer are not available now",
            (_, Reason::BadSignature) => "the signature of the bearer token is wrong",
            (_, Reason::WrongIssuer) => "the bearer token is from another issuer",
            (_, Reason::WrongAudience) => "the bearer token is for another audience",
            (AuthMethod::Mtls, Reason::Expired) => "the client certificate has expired",
            (_, Reason::Expired) => "the bearer token has expired",
            (AuthMethod::Mtls, Reason::NotYetValid) => "the client certificate is not valid yet",
            (_, Reason::NotYetValid) => "the bearer token is not valid yet",
            (_, Reason::MalformedCertificate) => {
                "the client certificate is malformed, or its names break the rules of SPIFFE"
            }
            (_, Reason::UntrustedCertificate) => "the client certificate is not trusted any more",
            (AuthMethod::Jwt, Reason::NoName) => {
                "the bearer token has no usable subject: `sub`, at most 508 bytes"
            }
            (AuthMethod::Mesh, Reason::NoName) => {
                "the client header of the service mesh contains no usable name"
            }
            (_, Reason::NoName) => "the client certificate contains no usable name",
        }
    }
}
