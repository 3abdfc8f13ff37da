//! Identifies the caller of a call by the credentials that `auth.mode` accepts.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, header::AUTHORIZATION};
use rustls_pki_types::CertificateDer;

use crate::{
    access::identity::{
        AuthenticationError, Checked, Credential, Identity, SharedIdentity, certificate,
        jwt::{KeyFileError, KeySetChanges, TokenRules, TokenVerifier},
        mesh::MeshHeaderReader,
    },
    background::FileReloader,
    config::{AuthConfig, AuthMode},
    domain::clock::Clock,
    telemetry::{AuthFailureReason, AuthMethod, Instruments},
};

/// The facts about the client of a call that its connection provides.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Address of the TCP peer.
    pub address: IpAddr,
    /// The client certificate that the TLS handshake has verified.
    pub certificate: Option<&'a CertificateDer<'a>>,
    /// False if the client CA of the certificate has been removed since the handshake.
    pub is_certificate_trusted: bool,
}

/// Identifies the callers of calls. Credentials of other kinds than `auth.mode` lists are ignored.
pub struct Authenticator {
    tokens: Option<Arc<TokenVerifier>>,
    mesh: Option<MeshHeaderReader>,
    accepts_certificates: bool,
    clock: Arc<dyn Clock>,
    instruments: Instruments,
}

/// The authenticator cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// `auth.jwt_jwks_file` cannot be used.
    #[error("auth.jwt_jwks_file: {0}")]
    KeyFile(#[from] KeyFileError),
    /// The TLS client for `auth.jwt_jwks_url` cannot be set up.
    #[error("auth.jwt_jwks_url: cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Authenticator {
    /// Sets up the accepted credentials, and adds the file of the issuer's keys to the files to reload.
    /// Returns `None` with `auth.mode = none`: callers have no identity. [`Authenticator::run`] must run too.
    ///
    /// # Errors
    ///
    /// The file of the issuer's keys cannot be read, or the HTTP client for their URL cannot be set up. A
    /// URL that cannot be reached is no error.
    pub fn new(
        auth: &AuthConfig,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
        reloader: &mut FileReloader,
    ) -> Result<Option<Arc<Self>>, SetupError> {
        if auth.accepts(AuthMode::None) {
            return Ok(None);
        }
        let tokens = match auth.accepts(AuthMode::Jwt) {
            true => token_verifier(auth, &clock, reloader)?,
            false => None,
        };
        let header = auth.mesh_header.filter(|_| auth.accepts(AuthMode::Mesh));
        let mesh =
            header.map(|header| MeshHeaderReader::new(header, auth.mesh_trusted_cidrs.clone()));
        let accepts_certificates = auth.accepts(AuthMode::Mtls);
        Ok(Some(Arc::new(Self { tokens, mesh, accepts_certificates, clock, instruments })))
    }

    /// Keeps the issuer's keys up to date. Never returns.
    pub async fn run(&self) {
        match &self.tokens {
            Some(tokens) => tokens.run().await,
            None => std::future::pending().await,
        }
    }

    /// Identifies the caller of a call: by its bearer token, or else by the header of a mesh, or else by its
    /// client certificate. A credential that is refused is an error, even if the call has another one.
    ///
    /// Waits only for a token with an unknown key, up to ten seconds, until the issuer's keys have been
    /// read again.
    ///
    /// # Errors
    ///
    /// No credential, or one that is refused. The failure is counted.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: Connection<'_>,
    ) -> Result<Arc<Identity>, AuthenticationError> {
        let identified = self.identify(headers, connection).await;
        identified.inspect_err(|error| self.count_failure(error))
    }

    /// Counts a refused credential.
    pub fn count_failure(&self, error: &AuthenticationError) {
        self.instruments.auth_failure(error.method, error.reason);
    }

    /// Checks again that the credential of an identity is trusted and has not expired, for a message that has
    /// arrived later, or a stream that is still open. The header of a mesh was valid for the whole call. Counts nothing.
    ///
    /// # Errors
    ///
    /// The certificate or the token has expired, or the client CA or the key of the issuer was removed.
    pub fn recheck(
        &self,
        identity: &Identity,
        connection: Connection<'_>,
    ) -> Result<(), AuthenticationError> {
        let checked = match (identity.credential, &self.tokens) {
            (Credential::MeshHeader, _) => Ok(()),
            (Credential::Token(_), Some(tokens)) => tokens.recheck(identity),
            (Credential::Token(_), None) => Err(AuthFailureReason::UnknownKey),
            (Credential::Certificate, _) if !connection.is_certificate_trusted => {
                Err(AuthFailureReason::UntrustedCertificate)
            }
            (Credential::Certificate, _) if identity.has_expired(self.clock.now()) => {
                Err(AuthFailureReason::Expired)
            }
            (Credential::Certificate, _) => Ok(()),
        };
        checked.map_err(with_method(identity.method()))
    }

    /// Notifies of each change of the issuer's keys. `None` if tokens are not accepted.
    pub fn subscribe(&self) -> Option<KeySetChanges> {
        self.tokens.as_ref().map(|tokens| tokens.subscribe())
    }

    async fn identify(
        &self,
        headers: &HeaderMap,
        connection: Connection<'_>,
    ) -> Result<SharedIdentity, AuthenticationError> {
        if let Some(tokens) = &self.tokens
            && let Some(token) = bearer_token(headers).map_err(with_method(AuthMethod::Jwt))?
        {
            return tokens.verify(token).await.map_err(with_method(AuthMethod::Jwt));
        }
        if let Some(mesh) = &self.mesh {
            let identified = mesh.identify(headers, connection.address);
            if let Some(identity) = identified.map_err(with_method(AuthMethod::Mesh))? {
                return Ok(Arc::new(identity));
            }
        }
        match connection.certificate.filter(|_| self.accepts_certificates) {
            Some(certificate) => self
                .identify_certificate(certificate, connection.is_certificate_trusted)
                .map_err(with_method(AuthMethod::Mtls)),
            None => Err(with_method(AuthMethod::None)(AuthFailureReason::NoCredential)),
        }
    }

    fn identify_certificate(
        &self,
        certificate: &CertificateDer<'_>,
        is_trusted: bool,
    ) -> Checked<SharedIdentity> {
        if !is_trusted {
            return Err(AuthFailureReason::UntrustedCertificate);
        }
        certificate::identify(certificate, self.clock.now()).map(Arc::new)
    }
}

/// Sets up the verification of tokens. The settings have either a file or a URL.
fn token_verifier(
    auth: &AuthConfig,
    clock: &Arc<dyn Clock>,
    reloader: &mut FileReloader,
) -> Result<Option<Arc<TokenVerifier>>, SetupError> {
    let (rules, clock) = (TokenRules::new(auth), Arc::clone(clock));
    if let Some(path) = &auth.jwt_jwks_file {
        let tokens = Arc::new(TokenVerifier::with_key_file(rules, path.clone(), clock)?);
        let reloading = Arc::clone(&tokens);
        reloader.add("auth.jwt_jwks_file", move || reloading.reload());
        return Ok(Some(tokens));
    }
    let url = auth.jwt_jwks_url.clone();
    let tokens = url.map(|url| TokenVerifier::with_key_url(rules, url, clock)).transpose()?;
    Ok(tokens.map(Arc::new))
}

/// Returns the bearer token. `None` if the call has no header `authorization`.
fn bearer_token(headers: &HeaderMap) -> Checked<Option<&str>> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().ok().filter(|_| lines.next().is_none());
    let (scheme, token) =
        text.and_then(|text| text.split_once(' ')).ok_or(AuthFailureReason::MalformedHeader)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthFailureReason::MalformedHeader);
    }
    Ok(Some(token.trim_matches(' ')))
}

/// Adds the method to a reason.
fn with_method(method: AuthMethod) -> impl Fn(AuthFailureReason) -> AuthenticationError {
    move |reason| AuthenticationError { method, reason }
}

#[cfg(test)]
mod tests;
