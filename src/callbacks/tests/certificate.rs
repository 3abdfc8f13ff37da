//! TLS and the reload of the certificate, on real sockets.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
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
    super::certificate::ReloadingCertificate,
    ESIM, PROFILE,
    harness::{CallbackHarness, open_config},
};

/// Longest time until a changed file takes effect. Files are read every two seconds.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A certificate and its key, in PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
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

/// A connection that trusts only this pair. Fails if the listener has another certificate.
async fn connect(world: &CallbackHarness, pair: &Pair) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.der()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let tcp = TcpStream::connect(world.address).await?;
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

async fn connect_once_reloaded(world: &CallbackHarness, pair: &Pair) -> TlsStream<TcpStream> {
    let start = Instant::now();
    loop {
        match connect(world, pair).await {
            Ok(stream) => return stream,
            Err(error) if start.elapsed() > RELOAD_TIMEOUT => panic!("{error}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let world = start(directory.path()).await;
    let authority = reqwest::Certificate::from_pem(pair.cert.as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    let url = format!("https://localhost:{}{PROFILE}", world.address.port());
    assert_eq!(http.post(&url).body(ESIM).send().await.unwrap().status(), 200);
    assert!(world.request(PROFILE).body(ESIM).send().await.is_err());

    let key_file = directory.path().join("key.pem");
    fs::write(&key_file, "no key").unwrap();
    let error = ReloadingCertificate::load(directory.path().join("cert.pem"), key_file);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("private key") && error.contains("key.pem"), "{error}");
}

#[tokio::test]
async fn a_handshake_that_stalls_delays_no_other_connection() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let world = start(directory.path()).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(TcpStream::connect(world.address).await.unwrap());
    }
    let begin = Instant::now();
    let mut stream = connect(&world, &pair).await.unwrap();
    assert!(post(&mut stream).await.starts_with("HTTP/1.1 200 "));
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn new_connections_get_a_changed_certificate_and_open_ones_continue() {
    let (directory, old, new) = (tempfile::tempdir().unwrap(), Pair::new(), Pair::new());
    old.write(directory.path());
    let world = start(directory.path()).await;
    let mut open = connect(&world, &old).await.unwrap();
    assert!(post(&mut open).await.starts_with("HTTP/1.1 200 "));
    assert!(connect(&world, &new).await.is_err());

    new.write(directory.path());
    let mut second = connect_once_reloaded(&world, &new).await;
    assert!(post(&mut second).await.starts_with("HTTP/1.1 200 "));
    assert!(connect(&world, &old).await.is_err());
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
    let world = start(path).await;
    connect(&world, &old).await.unwrap();
    symlink("second", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    connect_once_reloaded(&world, &new).await;
}

fn load(directory: &TempDir) -> Arc<ReloadingCertificate> {
    let path = directory.path();
    ReloadingCertificate::load(path.join("cert.pem"), path.join("key.pem")).unwrap()
}

#[tokio::test]
async fn a_broken_or_mismatched_pair_keeps_the_last_certificate() {
    let (directory, old, new) = (tempfile::tempdir().unwrap(), Pair::new(), Pair::new());
    old.write(directory.path());
    let certificate = load(&directory);
    let (cert_file, key_file) =
        (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let assert_old = || assert_eq!(certificate.current_chain(), [old.der()]);
    fs::write(&cert_file, "not a certificate").unwrap();
    assert!(certificate.reload().is_err());
    assert_old();
    // The key of another certificate: a renewal that has written one file so far.
    fs::write(&cert_file, &new.cert).unwrap();
    assert!(certificate.reload().is_err());
    assert_old();
    fs::remove_file(&key_file).unwrap();
    assert!(certificate.reload().is_err());
    assert_old();
    fs::write(&key_file, &new.key).unwrap();
    certificate.reload().unwrap();
    assert_eq!(certificate.current_chain(), [new.der()]);
}

#[tokio::test]
async fn a_broken_file_does_not_affect_the_listener() {
    let (directory, pair) = (tempfile::tempdir().unwrap(), Pair::new());
    pair.write(directory.path());
    let world = start(directory.path()).await;
    fs::write(directory.path().join("key.pem"), "broken").unwrap();
    // Longer than the interval of the reload.
    sleep(Duration::from_millis(2_500)).await;
    let mut stream = connect(&world, &pair).await.unwrap();
    assert!(post(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
