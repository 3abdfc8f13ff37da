//! Certificate authorities, certificates, and clients that use them.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use thingspace_gateway::proto::gateway_service_client::GatewayServiceClient;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::aws_lc_rs::default_provider,
        version::{TLS12, TLS13},
    },
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::gateway::{Client, TestDir};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Issued {
    cert: rcgen::Certificate,
    key: KeyPair,
}

/// The name in a certificate.
pub enum ClientName {
    Dns(&'static str),
    Spiffe(&'static str),
    Subject { organization: &'static str, name: &'static str },
}

/// The TLS files of a gateway.
pub struct TlsFiles {
    directory: TestDir,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for `localhost`, for servers and clients, that is valid until this year begins.
    pub fn issue_until(&self, year: i32) -> Issued {
        self.issue_named(&ClientName::Dns("localhost"), year)
    }

    /// Issues a certificate with this name, for servers and clients, that is valid until this year begins.
    pub fn issue_named(&self, name: &ClientName, year: i32) -> Issued {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        match name {
            ClientName::Dns(name) => {
                let name = SanType::DnsName((*name).try_into().expect("a name"));
                params.subject_alt_names.push(name);
            }
            ClientName::Spiffe(id) => {
                params.subject_alt_names.push(SanType::URI((*id).try_into().expect("a URI")));
            }
            ClientName::Subject { organization, name } => {
                params.distinguished_name.push(DnType::OrganizationName, *organization);
                params.distinguished_name.push(DnType::CommonName, *name);
            }
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(1_990, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        Issued { cert: params.signed_by(&key, &self.0).expect("a certificate"), key }
    }

    pub fn issue(&self) -> Issued {
        self.issue_until(4_000)
    }

    /// A client that trusts these authorities, with this certificate.
    pub fn client_config(
        authorities: &[&Self],
        certificate: Option<&Issued>,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.0.der().clone()).expect("a root");
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match certificate {
            Some(issued) => builder
                .with_client_auth_cert(vec![issued.der()], issued.key())
                .expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

impl Issued {
    pub fn der(&self) -> CertificateDer<'static> {
        self.cert.der().clone()
    }

    /// The certificate and its key.
    pub fn pem_with_key(&self) -> String {
        self.cert.pem() + &self.key.serialize_pem()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.key.serialize_der().try_into().expect("a key")
    }
}

impl TlsFiles {
    /// Writes a server certificate and a bundle of these authorities.
    pub fn new(server: &Issued, client_cas: &[&Authority]) -> Self {
        let files = Self { directory: TestDir::new() };
        files.write_server(server);
        files.write_client_cas(client_cas);
        files
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_string_lossy().into_owned()
    }

    /// Replaces the server's certificate and key, one after the other.
    pub fn write_server(&self, server: &Issued) {
        self.replace("key.pem", &server.key.serialize_pem());
        self.replace("cert.pem", &server.cert.pem());
    }

    pub fn write_client_cas(&self, client_cas: &[&Authority]) {
        let pem: String = client_cas.iter().map(|authority| authority.pem()).collect();
        self.replace("ca.pem", &pem);
    }

    /// Replaces a file at once.
    pub fn replace(&self, name: &str, content: &str) {
        let (new, file) = (self.directory.join("new"), self.directory.join(name));
        fs::write(&new, content).expect("a file");
        fs::rename::<&Path, &Path>(&new, &file).expect("a file");
    }
}

/// Opens a TLS connection.
pub async fn connect_tls(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    connect_tls_from(Ipv4Addr::UNSPECIFIED, address, config).await
}

/// Opens a TLS connection from a local address.
pub async fn connect_tls_from(
    local: Ipv4Addr,
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((local, 0).into())?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Returns a client with a TLS connection of its own.
pub async fn tls_client(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<Client, tonic::transport::Error> {
    let channel = tls_channel(Ipv4Addr::UNSPECIFIED, address, config).await;
    channel.map(GatewayServiceClient::new)
}

/// Opens a TLS connection of its own from a local address.
pub async fn tls_channel(
    local: Ipv4Addr,
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    let config = Arc::clone(config);
    let connector = service_fn(move |_uri| {
        let config = Arc::clone(&config);
        async move { connect_tls_from(local, address, &config).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await
}
