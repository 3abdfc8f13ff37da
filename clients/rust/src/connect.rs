//! The connection to a gateway.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{Client, GatewayError};

/// The time limit of a TCP connection, of a TLS handshake, and of the answer to a keepalive.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// The transport of the stubs: a channel that adds the bearer token to each call.
pub type Transport = InterceptedService<Channel, AddToken>;

/// The metadata of an error of the library itself, whose attempt was not sent.
pub(crate) const NOT_SENT: &str = "thingspace-gateway-client-not-sent";

type TokenError = Box<dyn Error + Send + Sync>;
type TokenFunction = dyn Fn() -> Result<String, TokenError> + Send + Sync;

/// The bearer token of a client.
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    Fixed(String),
    Function(Arc<TokenFunction>),
}

impl Token {
    /// A token that never changes.
    pub fn fixed(token: impl Into<String>) -> Self {
        Self(Source::Fixed(token.into()))
    }

    /// A function that returns the token. The library calls it for each attempt, so that it can return
    /// a renewed token. It must not block for long: let another task fetch the token. If it fails, the
    /// attempt is not sent: it fails with UNAVAILABLE, and is repeated.
    pub fn function<F, E>(function: F) -> Self
    where
        F: Fn() -> Result<String, E> + Send + Sync + 'static,
        E: Into<TokenError>,
    {
        Self(Source::Function(Arc::new(move || function().map_err(Into::into))))
    }

    pub(crate) fn is_function(&self) -> bool {
        matches!(self.0, Source::Function(_))
    }

    fn header(&self) -> Result<MetadataValue<Ascii>, Status> {
        let token = match &self.0 {
            Source::Fixed(token) => Ok(token.clone()),
            Source::Function(function) => function(),
        };
        let token = token.map_err(|error| {
            let mut status = Status::unavailable(format!("the token function failed: {error}"));
            // A source would be lost: tonic makes a response of the status of an interceptor.
            status.metadata_mut().insert(NOT_SENT, MetadataValue::from_static("true"));
            status
        })?;
        let mut header: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
            Status::unauthenticated("the token has characters that a header cannot have")
        })?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// Adds the bearer token to each call.
#[derive(Clone, Debug)]
pub struct AddToken(pub(crate) Option<Token>);

impl Interceptor for AddToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.header()?);
        }
        Ok(request)
    }
}

/// The options of a connection. [`Client::builder`] returns it.
///
/// The connection uses TLS with the roots of the system, unless the options say otherwise.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    target: String,
    plaintext: bool,
    ca: Option<Certificate>,
    identity: Option<Identity>,
    token: Option<Token>,
    allow_token_over_plaintext: bool,
    keepalive: Duration,
}

impl ClientBuilder {
    pub(crate) fn new(target: String) -> Self {
        Self {
            target,
            plaintext: false,
            ca: None,
            identity: None,
            token: None,
            allow_token_over_plaintext: false,
            keepalive: Duration::from_secs(30),
        }
    }

    /// Turns TLS off.
    pub fn plaintext(self) -> Self {
        Self { plaintext: true, ..self }
    }

    /// The certificate authorities of the gateway, in PEM format, instead of the roots of the system.
    pub fn ca(self, pem: impl AsRef<[u8]>) -> Self {
        Self { ca: Some(Certificate::from_pem(pem)), ..self }
    }

    /// The certificate of the client and its key, in PEM format.
    pub fn certificate(self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self { identity: Some(Identity::from_pem(certificate, key)), ..self }
    }

    /// The bearer token. It is sent over plaintext only with
    /// [`allow_token_over_plaintext`](Self::allow_token_over_plaintext).
    pub fn token(self, token: Token) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Allows the token to be sent over a connection without TLS. Everyone on the way can read it.
    pub fn allow_token_over_plaintext(self) -> Self {
        Self { allow_token_over_plaintext: true, ..self }
    }

    /// The time after which a silent connection is checked: 30 s by default. The check has 20 s.
    pub fn keepalive(self, keepalive: Duration) -> Self {
        Self { keepalive, ..self }
    }

    /// Returns a client. The first call opens the connection, so an unreachable gateway is not an error
    /// here. Must be called within a tokio runtime.
    pub fn connect(self) -> Result<Client, GatewayError> {
        let fault = if self.plaintext && (self.ca.is_some() || self.identity.is_some()) {
            "plaintext excludes ca and certificate"
        } else if self.plaintext && self.token.is_some() && !self.allow_token_over_plaintext {
            "a token over plaintext needs allow_token_over_plaintext"
        } else if tokio::runtime::Handle::try_current().is_err() {
            "connect must be called within a tokio runtime"
        } else {
            let endpoint = self.endpoint();
            let endpoint =
                endpoint.map_err(|error| GatewayError::invalid_argument(describe(&error)))?;
            return Ok(Client::from_channel(endpoint.connect_lazy(), self.token));
        };
        Err(GatewayError::invalid_argument(fault))
    }

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        let scheme = if self.plaintext { "http" } else { "https" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.target))?
            .user_agent(concat!("thingspace-gateway-client/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(CONNECTION_TIMEOUT)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(CONNECTION_TIMEOUT);
        if self.plaintext {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new().timeout(CONNECTION_TIMEOUT);
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(ca.clone()),
            None => tls.with_native_roots(),
        };
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.clone());
        }
        endpoint.tls_config(tls)
    }
}

/// Returns the messages of an error and of its sources.
fn describe(mut error: &dyn Error) -> String {
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}
