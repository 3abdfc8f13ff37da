//! The callers of matrix.txt.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio_rustls::rustls::{ClientConfig, version::TLS13};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::Trust;
use crate::support::{
    authority::{Authority, ClientName, Issued, tls_channel},
    gateway::Gateway,
    tokens::{Issuer, claims, now},
};

/// A connection whose calls carry the credentials of a caller.
pub type Connection = InterceptedService<Channel, Headers>;

/// The headers of the calls of a caller.
#[derive(Clone, Default)]
pub struct Headers(Vec<(&'static str, AsciiMetadataValue)>);

/// The credentials of a caller.
#[derive(Default)]
pub struct Credentials {
    certificate: Option<Issued>,
    headers: Headers,
    /// Address that the caller connects from.
    local: Option<Ipv4Addr>,
}

const CHANGER: ClientName = ClientName::Spiffe("spiffe://test.example/ns/fleet/sa/changer");
const READER: ClientName = ClientName::Dns("Reader.test.example");
const LISTER: ClientName = ClientName::Subject { organization: "Test", name: "lister" };
const STRANGER: ClientName = ClientName::Spiffe("spiffe://test.example/ns/other/sa/stranger");
/// The header of a proxy that has verified the certificate of `fleet`. The first element is from the client.
const MESH_HEADER: &str = "URI=spiffe://test.example/ns/mesh/sa/admin,By=spiffe://test.example/ns/gateway/sa/gateway;\
                           Hash=0123;URI=spiffe://test.example/ns/mesh/sa/fleet";
const TRUSTED_PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const HOUR: Duration = Duration::from_secs(3_600);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(*name, value.clone());
        }
        Ok(request)
    }
}

impl Credentials {
    pub fn token(token: &str) -> Self {
        Self::default().with_header("authorization", &format!("Bearer {token}"))
    }

    pub fn certificate(authority: &Authority, name: &ClientName) -> Self {
        let certificate = Some(authority.issue_named(name, 4_000));
        Self { certificate, ..Self::default() }
    }

    fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.0.push((name, value.parse().expect("a header")));
        self
    }

    /// Returns the credentials of a caller of the table.
    pub fn of(caller: &str, trust: &Trust) -> Self {
        match caller.split_once('-') {
            Some(("cert", name)) => Self::with_certificate(name, trust),
            Some(("jwt", name)) => {
                let (name, certificate) = name.split_once("-cert-").unwrap_or((name, ""));
                let token = Self::token(&token(name, &trust.issuer));
                match certificate {
                    "" => token,
                    name => Self {
                        certificate: Self::with_certificate(name, trust).certificate,
                        ..token
                    },
                }
            }
            Some(("mesh", name)) => {
                let certificate = name.strip_prefix("untrusted-cert-");
                let certificate = certificate.map(|name| Self::with_certificate(name, trust));
                let local = (name == "fleet").then_some(TRUSTED_PROXY);
                let credentials = Self { local, ..certificate.unwrap_or_default() };
                credentials.with_header("x-forwarded-client-cert", MESH_HEADER)
            }
            _ => Self::default(),
        }
    }

    fn with_certificate(name: &str, trust: &Trust) -> Self {
        match name {
            "wrong-ca" => Self::certificate(&Authority::new("other"), &CHANGER),
            "expired" => {
                let certificate = Some(trust.clients.issue_named(&CHANGER, 2_000));
                Self { certificate, ..Self::default() }
            }
            "changer" => Self::certificate(&trust.clients, &CHANGER),
            "reader" => Self::certificate(&trust.clients, &READER),
            "lister" => Self::certificate(&trust.clients, &LISTER),
            "stranger" => Self::certificate(&trust.clients, &STRANGER),
            name => panic!("no such certificate: {name}"),
        }
    }

    fn tls(&self, trust: &Trust) -> Arc<ClientConfig> {
        Authority::client_config(&[&trust.servers], self.certificate.as_ref(), &TLS13)
    }

    /// Opens a connection. `None` if the gateway refuses it.
    pub async fn connect(&self, gateway: &Gateway, trust: &Trust) -> Option<Connection> {
        let local = self.local.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let channel = tls_channel(local, gateway.grpc, &self.tls(trust)).await.ok()?;
        Some(InterceptedService::new(channel, self.headers.clone()))
    }
}

/// Returns the token of a caller of the table.
fn token(name: &str, issuer: &Issuer) -> String {
    let with = |member: &str, value: Value| {
        let mut claims = claims("fleet", now() + HOUR);
        claims[member] = value;
        claims
    };
    let valid = claims("fleet", now() + HOUR);
    match name {
        "expired" => issuer.token_until("fleet", now() - Duration::from_secs(5)),
        "not-yet-valid" => issuer.sign(&with("nbf", (now() + HOUR).as_secs().into())),
        "no-expiry" => issuer.sign(&with("exp", Value::Null)),
        "wrong-audience" => issuer.sign(&with("aud", json!(["another-service", "gateway"]))),
        "wrong-issuer" => issuer.sign(&with("iss", "https://other.test.example".into())),
        "alg-none" => issuer.unsigned(&valid),
        "key-confusion" => issuer.confused(&valid),
        "unknown-kid" => Issuer::new("another").sign(&valid),
        // Another key, with the name of the issuer's key.
        "other-key" => Issuer::new("first").sign(&valid),
        subject => issuer.token(subject),
    }
}
