//! The handshakes of one port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs::default_provider},
        server::NoServerSessionStorage,
    },
    server::TlsStream,
};

use crate::{
    background::FileReloader,
    domain::clock::Clock,
    telemetry::{CertificateKind, HandshakeFailure, Instruments},
    tls::{
        certificate::ReloadingCertificate,
        client_cas::ReloadingClientCas,
        error::TlsError,
        failure::{FailureLog, classify},
        options::{ClientCertificates, TlsOptions},
        peer::{Peer, PeerCertificates},
        validity::{VerificationClock, format_utc, seconds},
    },
};

/// Time from the acceptance of a connection until the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a client to read the alert after a failed handshake.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of bytes that a client may send after a failed handshake.
const LINGER_BYTES: u64 = 16 * 1024;
/// Maximum number of encrypted bytes of one connection that wait for the client. The default of rustls is 64 KiB.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// TLS of one port: TLS 1.2 and 1.3.
pub struct ServerTls {
    options: TlsOptions,
    provider: Arc<CryptoProvider>,
    clock: VerificationClock,
    certificate: Arc<ReloadingCertificate>,
    client_cas: Option<Arc<ReloadingClientCas>>,
    current: RwLock<Arc<CurrentConfig>>,
    /// Serializes reloads of the CA bundle, so that each bundle has a generation of its own.
    reload: Mutex<()>,
    instruments: Instruments,
    failures: FailureLog,
}

/// A connection after its handshake.
pub struct Accepted {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Its client.
    pub peer: Peer,
}

/// The configuration for new handshakes.
struct CurrentConfig {
    config: Arc<ServerConfig>,
    /// Generation of the CA bundle.
    generation: u64,
}

/// A handshake that failed.
enum Failure {
    /// The client sent nothing, as the health check of a load balancer does.
    Unused,
    Failed(HandshakeFailure, String),
}

// === impl ServerTls ===

impl ServerTls {
    /// Loads the files of a port. `clock` decides which client certificates have expired.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be used.
    pub fn new(
        options: TlsOptions,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(default_provider());
        let (cert_file, key_file) = (options.cert_file.clone(), options.key_file.clone());
        let certificate =
            Arc::new(ReloadingCertificate::load(cert_file, key_file, Arc::clone(&provider))?);
        let client_cas = ReloadingClientCas::load(
            &options.client_certificates,
            Arc::clone(&provider),
            Arc::clone(&clock),
        )?;
        let clock = VerificationClock(clock);
        let client_cas_ref = client_cas.as_deref();
        let current =
            CurrentConfig::build(&options, &provider, &clock, &certificate, client_cas_ref)?;
        let failures = FailureLog::new(options.port, instruments.clone());
        let current = RwLock::new(Arc::new(current));
        let this = Self {
            options,
            provider,
            clock,
            certificate,
            client_cas,
            current,
            reload: Mutex::new(()),
            instruments,
            failures,
        };
        this.record_expiry();
        Ok(Arc::new(this))
    }

    /// Adds the files to the files to reload.
    pub fn reload_with(self: &Arc<Self>, files: &mut FileReloader) {
        let this = Arc::clone(self);
        files.add(self.options.cert_key(), move || this.reload_certificate());
        if self.client_cas.is_some() {
            let this = Arc::clone(self);
            files.add(ClientCertificates::CA_KEY, move || this.reload_client_cas());
        }
    }

    /// Returns a receiver that is notified when the bundle of client CAs changes. `None` if clients present no
    /// certificates.
    pub fn subscribe_client_cas(&self) -> Option<watch::Receiver<u64>> {
        self.client_cas.as_ref().map(|cas| cas.subscribe())
    }

    /// Makes the handshake of a new connection. Returns `None` if it fails; it is then counted and logged, and the
    /// connection is closed.
    pub async fn accept(&self, stream: TcpStream, address: SocketAddr) -> Option<Accepted> {
        let result = timeout(HANDSHAKE_TIMEOUT, self.handshake(stream, address)).await;
        let (stream, failure) = match result {
            Ok(Ok(accepted)) => return Some(accepted),
            Ok(Err(failed)) => failed,
            Err(_elapsed) => {
                let error = format!("not finished within {HANDSHAKE_TIMEOUT:?}");
                self.failures.record(HandshakeFailure::Timeout, address, &error);
                return None;
            }
        };
        if let Failure::Failed(reason, error) = failure {
            self.failures.record(reason, address, &error);
            close(stream).await;
        }
        None
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Accepted, (TcpStream, Failure)> {
        if !matches!(stream.peek(&mut [0]).await, Ok(1..)) {
            return Err((stream, Failure::Unused));
        }
        let current = Arc::clone(&self.current.read());
        let acceptor = TlsAcceptor::from(Arc::clone(&current.config));
        let accepted = acceptor.accept(stream).into_fallible().await;
        let mut stream = accepted.map_err(|(error, stream)| {
            (stream, Failure::Failed(classify(&error), error.to_string()))
        })?;
        stream.get_mut().1.set_buffer_limit(Some(SEND_BUFFER_BYTES));
        match self.check_connection(&stream, current.generation) {
            Ok(certificates) => Ok(Accepted { stream, peer: Peer { address, certificates } }),
            Err(failure) => {
                // Sends close_notify.
                let _ = stream.shutdown().await;
                Err((stream.into_inner().0, failure))
            }
        }
    }

    /// Checks the protocol, and returns the certificates of the client.
    fn check_connection(
        &self,
        stream: &TlsStream<TcpStream>,
        generation: u64,
    ) -> Result<Option<Arc<PeerCertificates>>, Failure> {
        let (_, connection) = stream.get_ref();
        if self.options.requires_alpn() && connection.alpn_protocol().is_none() {
            let error = "the client does not offer the protocol by ALPN".to_owned();
            return Err(Failure::Failed(HandshakeFailure::Alpn, error));
        }
        let (Some(cas), Some(chain)) = (&self.client_cas, connection.peer_certificates()) else {
            return Ok(None);
        };
        let certificates = PeerCertificates::new(chain, Arc::clone(cas), generation);
        certificates
            .map(|certificates| Some(Arc::new(certificates)))
            .map_err(|error| Failure::Failed(HandshakeFailure::BadCertificate, error.to_string()))
    }

    fn reload_certificate(&self) -> Result<(), TlsError> {
        if self.certificate.reload()? {
            let not_after = self.certificate.not_after().map(format_utc).unwrap_or_default();
            tracing::info!(port = self.options.port.name(), not_after, "reloaded the certificate");
            self.record_expiry();
        }
        Ok(())
    }

    fn reload_client_cas(&self) -> Result<(), TlsError> {
        let Some(cas) = &self.client_cas else { return Ok(()) };
        let _reload = self.reload.lock();
        if cas.reload()? {
            // A handshake with the previous configuration in the meantime carries its generation, so that its
            // client is verified again.
            let config = CurrentConfig::build(
                &self.options,
                &self.provider,
                &self.clock,
                &self.certificate,
                Some(cas),
            )?;
            *self.current.write() = Arc::new(config);
            cas.announce();
            tracing::info!(port = self.options.port.name(), "reloaded the client CA bundle");
            self.record_expiry();
        }
        Ok(())
    }

    fn record_expiry(&self) {
        let client_cas = self.client_cas.as_ref().and_then(|cas| cas.current().not_after);
        for (kind, not_after) in [
            (CertificateKind::Server, self.certificate.not_after()),
            (CertificateKind::ClientCa, client_cas),
        ] {
            if let Some(not_after) = not_after {
                self.instruments.certificate_expiry(self.options.port, kind, seconds(not_after));
            }
        }
    }
}

// === impl CurrentConfig ===

impl CurrentConfig {
    fn build(
        options: &TlsOptions,
        provider: &Arc<CryptoProvider>,
        clock: &VerificationClock,
        certificate: &Arc<ReloadingCertificate>,
        client_cas: Option<&ReloadingClientCas>,
    ) -> Result<Self, TlsError> {
        let bundle = client_cas.map(ReloadingClientCas::current);
        let builder =
            ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(clock.clone()))
                .with_safe_default_protocol_versions()
                .map_err(|error| TlsError::new("certificate", &options.cert_file, error))?;
        let builder = match &bundle {
            Some(bundle) => builder.with_client_cert_verifier(Arc::clone(&bundle.verifier)),
            None => builder.with_no_client_auth(),
        };
        let certificate = Arc::clone(certificate);
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols = options.protocols.iter().map(|name| name.to_vec()).collect();
        if bundle.is_some() {
            // A resumed session has the client's certificate without a verification of it.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        let generation = bundle.map_or(0, |bundle| bundle.generation);
        Ok(Self { config: Arc::new(config), generation })
    }
}

/// Closes a connection after its alert. Reads the bytes that the client has sent: the system would otherwise reset the
/// connection, and the client could lose the alert.
async fn close(mut stream: TcpStream) {
    let close = async {
        stream.shutdown().await?;
        let mut unread = (&mut stream).take(LINGER_BYTES);
        tokio::io::copy(&mut unread, &mut tokio::io::sink()).await?;
        io::Result::Ok(())
    };
    let _ = timeout(LINGER_TIMEOUT, close).await;
}
