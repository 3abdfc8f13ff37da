//! TLS and the reload of the certificate, on real sockets.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant, sleep},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore},
};

use super::{
    ESIM, PROFILE,
    harness::{CallbackHarness, open_config},
};

/// Timeout for a reload. Files are read every two seconds.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate and its key, in PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let generated = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Self { cert: generated.cert.pem(), key: generated.signing_key.serialize_pem() }
    }

    fn write(&self, directory: &Path) {
        fs::write(directory.join("cert.pem"), &self.cert).unwrap();
        fs::write(directory.join("key.pem"), &self.key).unwrap();
    }

    fn der(&self) -> CertificateDer<'static> {
        use rustls_pki_types::pem::PemObject as _;
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

async fn start(directory: &Path) -> CallbackHarness {
    let mut config = open_config();
    config.callbacks.tls_cert_file = Some(directory.join("cert.pem"));
    config.callbacks.tls_key_file = Some(directory.join("key.pem"));
    CallbackHarness::start(config).await
}

/// Connects, trusting only this pair. Fails if the listener has another certificate.
async fn connect(harness: &CallbackHarness, pair: &Pair) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.der()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let tcp = TcpStream::connect(harness.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// Sends a callback and reads the head of the response.
async fn post(stream: &mut TlsStream<TcpStream>) -> String {
    let request = format!(
        "POST {PROFILE} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{ESIM}",
        ESIM.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

/// Connects when the listener has loaded this pair.
async fn connect_when_reloaded(harness: &CallbackHarness, pair: &Pair) -> TlsStream<TcpStream> {
    let start = Instant::now();
    loop {
        match connect(harness, pair).await {
            Ok(stream) => return stream,
            Err(error) if start.elapsed() > RELOAD_TIMEOUT => panic!("{error}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn a_listener_with_a_certificate_accepts_only_tls() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let harness = start(directory.path()).await;
    let authority = reqwest::Certificate::from_pem(pair.cert.as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let url = format!("https://localhost:{}{PROFILE}", harness.address.port());
    assert_eq!(http.post(&url).body(ESIM).send().await.unwrap().status(), 200);
    assert!(harness.request(PROFILE).body(ESIM).send().await.is_err());
}

#[tokio::test]
async fn a_handshake_that_stalls_delays_no_other_connection() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let harness = start(directory.path()).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(TcpStream::connect(harness.address).await.unwrap());
    }
    let begin = Instant::now();
    let mut stream = connect(&harness, &pair).await.unwrap();
    assert!(post(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn new_connections_get_a_changed_certificate_and_open_ones_continue() {
    let (directory, old, new) = (tempfile::tempdir().unwrap(), Pair::new(), Pair::new());
    old.write(directory.path());
    let harness = start(directory.path()).await;
    let mut open = connect(&harness, &old).await.unwrap();
    assert!(post(&mut open).await.starts_with("HTTP/1.1 200 "));
    assert!(connect(&harness, &new).await.is_err());

    new.write(directory.path());
    let mut second = connect_when_reloaded(&harness, &new).await;
    assert!(post(&mut second).await.starts_with("HTTP/1.1 200 "));
    assert!(connect(&harness, &old).await.is_err());
    assert!(post(&mut open).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_certificate_behind_swapped_symlinks_is_reloaded() {
    // As Kubernetes mounts a Secret: the files link to `..data/…`, and `..data` to a directory.
    let (directory, old, new) = (tempfile::tempdir().unwrap(), Pair::new(), Pair::new());
    let path = directory.path();
    for (name, pair) in [("first", &old), ("second", &new)] {
        fs::create_dir(path.join(name)).unwrap();
        pair.write(&path.join(name));
    }
    symlink("first", path.join("..data")).unwrap();
    for file in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{file}"), path.join(file)).unwrap();
    }
    let harness = start(path).await;
    connect(&harness, &old).await.unwrap();
    symlink("second", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    connect_when_reloaded(&harness, &new).await;
}

#[tokio::test]
async fn a_broken_file_does_not_affect_the_listener() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let harness = start(directory.path()).await;
    fs::write(directory.path().join("key.pem"), "broken").unwrap();
    // Waits for longer than the interval of the reload. No condition can be awaited: the test shows
    // that nothing happens.
    sleep(Duration::from_millis(2_500)).await;
    let mut stream = connect(&harness, &pair).await.unwrap();
    assert!(post(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
