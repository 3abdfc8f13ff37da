//! A port on a real socket.

use std::{
    fs,
    io::{self, ErrorKind},
    iter::{once, repeat_n},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::{CryptoProvider, aws_lc_rs::default_provider},
        version::{TLS12, TLS13},
    },
};
use tokio_util::sync::CancellationToken;

use super::authority::{Authority, Issued};
use crate::{
    domain::clock::{Clock, Timestamp},
    telemetry::{HandshakeFailure, Port, Telemetry},
    tls::{
        Accepted, ClientCertificates, ServerTls, TlsOptions,
        options::{HTTP1, HTTP2},
    },
};

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A clock that tests set.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    /// A clock at the begin of the year 2020.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(1_577_836_800_000_000)))
    }

    pub(super) fn set(&self, time: Timestamp) {
        self.0.store(time.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// The use of client certificates on a port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    No,
    Optional,
    Required,
}

/// The names of the protocols of a port in ALPN.
pub(super) type Protocols = &'static [&'static [u8]];

/// TLS of a port with its files.
pub(super) struct TestPort {
    pub(super) directory: TempDir,
    pub(super) authority: Authority,
    pub(super) clock: Arc<TestClock>,
    pub(super) telemetry: Telemetry,
    pub(super) tls: Arc<ServerTls>,
}

/// The parameters that a client offers.
pub(super) struct Offer<'a> {
    pub(super) version: &'static SupportedProtocolVersion,
    pub(super) alpn: Option<&'static [u8]>,
    pub(super) certificate: Option<&'a Issued>,
    /// Number of certificates of the authority that the client appends to its chain.
    pub(super) padding: usize,
    /// The client accepts only the certificates of this authority.
    pub(super) trusts: Option<&'a Authority>,
    pub(super) provider: CryptoProvider,
}

impl Default for Offer<'_> {
    fn default() -> Self {
        Self {
            version: &TLS13,
            alpn: Some(b"h2"),
            certificate: None,
            padding: 0,
            trusts: None,
            provider: default_provider(),
        }
    }
}

impl TestPort {
    pub(super) fn new(port: Port, ask: Ask) -> Self {
        Self::with_protocols(port, ask, if port == Port::Grpc { &[HTTP2] } else { &[HTTP1] })
    }

    pub(super) fn with_protocols(port: Port, ask: Ask, protocols: Protocols) -> Self {
        let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("clients"));
        authority.issue_server().write(directory.path());
        let ca_file = directory.path().join("ca.pem");
        fs::write(&ca_file, authority.pem()).unwrap();
        let options = TlsOptions {
            port,
            cert_file: directory.path().join("cert.pem"),
            key_file: directory.path().join("key.pem"),
            protocols,
            client_certificates: match ask {
                Ask::No => ClientCertificates::None,
                Ask::Optional => ClientCertificates::Optional { ca_file },
                Ask::Required => ClientCertificates::Required { ca_file },
            },
        };
        let (clock, telemetry) = (TestClock::new(), Telemetry::metrics_only().unwrap());
        let tls = ServerTls::new(options, clock.clone(), telemetry.instruments()).unwrap();
        Self { directory, authority, clock, telemetry, tls }
    }

    pub(super) fn grpc(ask: Ask) -> Self {
        Self::new(Port::Grpc, ask)
    }

    pub(super) fn write_cas(&self, pem: &str) {
        fs::write(self.directory.path().join("ca.pem"), pem).unwrap();
    }

    /// Number of failed handshakes with a reason.
    pub(super) fn failed(&self, port: &str, reason: HandshakeFailure) -> u64 {
        let reason = reason.name();
        self.telemetry.sample(&format!(
            "thingspace_gateway_tls_handshakes_failed_total{{thingspace_gateway_port=\"{port}\",\
             thingspace_gateway_reason=\"{reason}\"}}"
        ))
    }

    /// Number of all failed handshakes.
    pub(super) fn all_failed(&self) -> u64 {
        let reasons = HandshakeFailure::ALL.into_iter();
        reasons.map(|reason| self.failed("grpc", reason) + self.failed("callbacks", reason)).sum()
    }

    /// Accepts one connection of this client. The token of the client is cancelled after the handshake.
    pub(super) async fn accept<F, T>(&self, client: F) -> (Option<Accepted>, T)
    where
        F: AsyncFnOnce(TcpStream, CancellationToken) -> T,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = CancellationToken::new();
        let client =
            async { client(TcpStream::connect(address).await.unwrap(), accepted.clone()).await };
        let server = async {
            let (stream, peer) = listener.accept().await.unwrap();
            let result = self.tls.accept(stream, peer).await;
            accepted.cancel();
            result
        };
        tokio::join!(server, client)
    }

    /// Makes a handshake with this client. Returns its result.
    pub(super) async fn handshake(&self, offer: Offer<'_>) -> (Option<Accepted>, io::Result<()>) {
        let config = self.client_config(offer);
        self.accept(async |stream, accepted| {
            let mut stream = connect(config, stream).await?;
            // With TLS 1.3, a client finishes its handshake before the port verifies its certificate.
            match accepted.run_until_cancelled(stream.read(&mut [0])).await {
                Some(Ok(0)) => Err(ErrorKind::UnexpectedEof.into()),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => Ok(()),
            }
        })
        .await
    }

    pub(super) fn client_config(&self, offer: Offer<'_>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(offer.trusts.unwrap_or(&self.authority).der()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(offer.provider))
            .with_protocol_versions(&[offer.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match offer.certificate {
            Some(issued) => {
                let padding = repeat_n(self.authority.der(), offer.padding);
                let chain = once(issued.der()).chain(padding).collect();
                builder.with_client_auth_cert(chain, issued.key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = offer.alpn.map(<[u8]>::to_vec).into_iter().collect();
        Arc::new(config)
    }
}

pub(super) async fn connect(
    config: Arc<ClientConfig>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config).connect(name, stream).await
}
