//! TLS on the gRPC port of a real gateway.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use thingspace_gateway::proto::GetServerInfoRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{client::TlsStream, rustls::ClientConfig, rustls::version::TLS13};
use tonic::Status;

use crate::{
    attack::alone,
    support::{
        authority::{Authority, Issued, TlsFiles, VERSIONS, connect_tls, tls_client},
        cli,
        gateway::{Client, Gateway, Setup, TestDir},
        http::read_metrics,
        report,
        requests::parse_error,
        wait::{eventually, eventually_some, in_time},
    },
};

/// Client preface and an empty SETTINGS frame (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Type of the GOAWAY frame.
const GOAWAY: u8 = 7;

/// A gateway with TLS, the authority of its certificate, and the authority of its clients.
struct TlsGateway {
    gateway: Gateway,
    files: TlsFiles,
    servers: Authority,
    clients: Authority,
}

impl TlsGateway {
    async fn start() -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let files = TlsFiles::new(&servers.issue(), &[&clients]);
        let gateway = with_tls(Setup::sandbox(), &files).start().await;
        Self { gateway, files, servers, clients }
    }

    fn config(&self, certificate: Option<&Issued>) -> Arc<ClientConfig> {
        Authority::client_config(&[&self.servers], certificate, &TLS13)
    }

    async fn failed_handshakes(&self, reason: &str) -> u64 {
        self.count("thingspace_gateway_tls_handshakes_failed_total", reason).await
    }

    /// The value of a metric of the gRPC port with this reason.
    async fn count(&self, metric: &str, reason: &str) -> u64 {
        let metrics = read_metrics(&self.gateway).await;
        let series = format!(
            "{metric}{{thingspace_gateway_port=\"grpc\",thingspace_gateway_reason=\"{reason}\"}} "
        );
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("the series exists").parse().expect("a number")
    }
}

fn with_tls(setup: Setup, files: &TlsFiles) -> Setup {
    setup
        .set("grpc.tls_cert_file", &files.path("cert.pem"))
        .set("grpc.tls_key_file", &files.path("key.pem"))
        .set("grpc.tls_client_ca_file", &files.path("ca.pem"))
}

async fn call(client: &mut Client) -> Result<(), Status> {
    let response = in_time(client.get_server_info(GetServerInfoRequest {})).await;
    response.map(|_| ())
}

/// Makes a call on a new connection. `None` if there is no connection.
async fn call_once(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<Result<(), Status>> {
    let mut client = tls_client(address, config).await.ok()?;
    Some(call(&mut client).await)
}

async fn is_served(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    matches!(call_once(address, config).await, Some(Ok(())))
}

#[tokio::test]
async fn calls_are_served_with_tls_12_and_13_and_not_without_tls() {
    let tls = TlsGateway::start().await;
    let address = tls.gateway.grpc;
    let certificate = tls.clients.issue();
    for version in VERSIONS {
        for certificate in [None, Some(&certificate)] {
            let config = Authority::client_config(&[&tls.servers], certificate, version);
            call_once(address, &config).await.unwrap().unwrap();
        }
    }

    assert_eq!(tls.failed_handshakes("not_tls").await, 0);
    let plaintext = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    if let Ok(channel) = plaintext.connect().await {
        call(&mut Client::new(channel)).await.unwrap_err();
    }
    let mut garbage = TcpStream::connect(address).await.unwrap();
    garbage.write_all(b"Q\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    // An alert, and no reset.
    in_time(garbage.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(tls.failed_handshakes("not_tls").await, 2);

    let mut other = (*tls.config(None)).clone();
    other.alpn_protocols = vec![b"http/1.0".to_vec()];
    assert!(connect_tls(address, &Arc::new(other.clone())).await.is_err());
    assert_eq!(tls.failed_handshakes("alpn").await, 1);
    // Plain HTTP, which tests/it/web uses. Old clients offer no protocol.
    for names in [vec![b"http/1.1".to_vec()], vec![]] {
        other.alpn_protocols = names;
        assert!(connect_tls(address, &Arc::new(other.clone())).await.is_ok());
    }

    // The other ports and the command are not affected.
    let admin = tls.gateway.admin.to_string();
    let output = cli::run(&["healthcheck", "--admin.listen", &admin], &[]).await;
    assert_eq!(output.stdout, "SERVING\n", "{output:?}");
}

#[tokio::test]
async fn a_client_whose_certificate_is_not_valid_is_not_served() {
    let tls = TlsGateway::start().await;
    let other = Authority::new("other");
    for (certificate, reason) in [
        (other.issue(), "unknown_ca"),
        (tls.clients.issue_until(2_000), "expired_certificate"),
        (tls.servers.issue(), "unknown_ca"),
    ] {
        let before = tls.failed_handshakes(reason).await;
        assert!(!is_served(tls.gateway.grpc, &tls.config(Some(&certificate))).await, "{reason}");
        assert!(tls.failed_handshakes(reason).await > before, "{reason}");
    }
    assert!(is_served(tls.gateway.grpc, &tls.config(Some(&tls.clients.issue()))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_finish_their_handshakes_do_not_keep_others_out() {
    let _alone = alone().await;
    let tls = TlsGateway::start().await;
    let address = tls.gateway.grpc;
    let mut attack = JoinSet::new();
    for _ in 0..1_500 {
        attack.spawn(async move {
            while let Ok(mut stream) = TcpStream::connect(address).await {
                // The type of a handshake record (RFC 8446, section 5.1). Then waits until the gateway closes the
                // connection.
                let _ = stream.write_all(&[22]).await;
                let _ = stream.read(&mut [0]).await;
            }
        });
    }
    eventually("the gateway ends handshakes for new ones", async || {
        tls.count("thingspace_gateway_connections_closed_total", "idle").await > 0
    })
    .await;
    for _ in 0..3 {
        call_once(address, &tls.config(None)).await.unwrap().unwrap();
    }
}

/// Repeats calls until a stop, on one connection or each on a new one. Returns the errors.
async fn load(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    reconnects: bool,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut client = tls_client(address, &config).await.unwrap();
    let mut errors = Vec::new();
    while !stop.load(SeqCst) {
        if reconnects {
            match tls_client(address, &config).await {
                Ok(new) => client = new,
                Err(error) => errors.push(format!("{error:?}")),
            }
        }
        if let Err(error) = call(&mut client).await {
            errors.push(error.to_string());
        }
        calls.fetch_add(1, SeqCst);
    }
    errors
}

/// The certificate that the gateway presents.
async fn presented(address: SocketAddr, config: &Arc<ClientConfig>) -> Vec<u8> {
    let stream = connect_tls(address, config).await.expect("a connection");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_authorities_are_replaced_under_load_without_a_failed_call() {
    let tls = TlsGateway::start().await;
    let address = tls.gateway.grpc;
    let (new_servers, new_clients) = (Authority::new("servers"), Authority::new("clients 2"));
    let (old_client, new_client) = (tls.clients.issue(), new_clients.issue());
    let trusted = [&tls.servers, &new_servers];
    let config = |certificate| Authority::client_config(&trusted, Some(certificate), &TLS13);

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let start = |reconnects, config| {
        tokio::spawn(load(address, config, reconnects, stop.clone(), calls.clone()))
    };
    let mut tasks = vec![start(true, config(&old_client)), start(false, config(&old_client))];
    let new_server = new_servers.issue();
    for _ in 0..3 {
        tls.files.write_server(&tls.servers.issue());
    }
    let begin = Instant::now();
    tls.files.write_server(&new_server);
    eventually("the new certificate is in force", async || {
        presented(address, &config(&old_client)).await == new_server.der().to_vec()
    })
    .await;
    report(format!("a certificate is in force after {:?}", begin.elapsed()));

    let begin = Instant::now();
    tls.files.write_client_cas(&[&tls.clients, &new_clients]);
    eventually("the new authority is in force", async || {
        is_served(address, &config(&new_client)).await
    })
    .await;
    report(format!("an authority is in force after {:?}", begin.elapsed()));
    tasks.extend([start(true, config(&new_client)), start(false, config(&new_client))]);
    let target = calls.load(SeqCst) + 200;
    eventually("calls continue", async || calls.load(SeqCst) > target).await;
    stop.store(true, SeqCst);
    for task in tasks {
        assert_eq!(task.await.unwrap(), Vec::<String>::new());
    }
    report(format!("{} calls succeeded", calls.load(SeqCst)));
}

/// Opens an HTTP/2 connection.
async fn connect_http2(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let mut stream = connect_tls(address, config).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    assert_eq!(read_frame(&mut stream).await, Some(4), "SETTINGS is first");
    stream
}

/// Reads a frame and returns its type, or `None` at the end.
async fn read_frame(stream: &mut TlsStream<TcpStream>) -> Option<u8> {
    let mut header = [0; 9];
    in_time(stream.read_exact(&mut header)).await.ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length.try_into().unwrap()];
    in_time(stream.read_exact(&mut payload)).await.ok()?;
    Some(header[3])
}

/// Waits for GOAWAY, and closes the connection.
async fn wait_for_goaway(mut stream: TlsStream<TcpStream>) {
    while read_frame(&mut stream).await.expect("GOAWAY before the end of the connection") != GOAWAY
    {
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_authority_ends_the_connections_of_its_clients_with_goaway() {
    let tls = TlsGateway::start().await;
    let address = tls.gateway.grpc;
    let other = Authority::new("other");
    tls.files.write_client_cas(&[&tls.clients, &other]);
    let (removed, kept) = (tls.clients.issue(), other.issue());
    let (removed, kept) = (tls.config(Some(&removed)), tls.config(Some(&kept)));
    eventually("both authorities are in force", async || is_served(address, &kept).await).await;
    let removed_connection = connect_http2(address, &removed).await;
    let mut anonymous_client = tls_client(address, &tls.config(None)).await.unwrap();
    let mut kept_client = tls_client(address, &kept).await.unwrap();

    let begin = Instant::now();
    tls.files.write_client_cas(&[&other]);
    wait_for_goaway(removed_connection).await;
    report(format!("GOAWAY after {:?}", begin.elapsed()));
    eventually("new handshakes fail", async || !is_served(address, &removed).await).await;
    assert!(tls.failed_handshakes("unknown_ca").await > 0);
    call(&mut kept_client).await.unwrap();
    call(&mut anonymous_client).await.unwrap();
    assert!(is_served(address, &kept).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_sends_goaway_and_does_not_wait_for_handshakes() {
    let mut tls = TlsGateway::start().await;
    let config = tls.config(None);
    let connection = connect_http2(tls.gateway.grpc, &config).await;
    // Before the first byte, during the handshake, and after it.
    let _idle = TcpStream::connect(tls.gateway.grpc).await.unwrap();
    let mut stalled = TcpStream::connect(tls.gateway.grpc).await.unwrap();
    stalled.write_all(&[0x16, 3, 1]).await.unwrap();
    let _silent = connect_tls(tls.gateway.grpc, &config).await.unwrap();
    let ((), exit) = tokio::join!(wait_for_goaway(connection), tls.gateway.terminate());
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.log.contains("\"drained\":true"), "{}", exit.log);
}

#[tokio::test]
async fn a_gateway_without_its_database_rejects_calls_over_tls() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = TlsFiles::new(&servers.issue(), &[&clients]);
    let (directory, spool) = (TestDir::new(), TestDir::new());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = Setup::serve("http://127.0.0.1:9/api", &directory)
        .postgres("postgresql://gateway@127.0.0.1:1/gateway")
        .set("journal.spool_dir", &spool.path().to_string_lossy())
        .set("grpc.listen", &port.to_string());
    let mut command = with_tls(setup, &files).command();
    let _gateway = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let config = Authority::client_config(&[&servers], None, &TLS13);
    let status = eventually_some("the gateway answers", async || {
        call_once(port, &config).await.and_then(Result::err)
    })
    .await;
    assert_eq!(parse_error(&status).summary().1, "JOURNAL_UNAVAILABLE");
}

#[tokio::test]
async fn config_check_shows_certificates_and_fails_for_those_that_cannot_be_used() {
    let (servers, other) = (Authority::new("servers"), Authority::new("other"));
    let files = TlsFiles::new(&servers.issue(), &[&other]);
    let (cert_file, key_file, ca_file) =
        (files.path("cert.pem"), files.path("key.pem"), files.path("ca.pem"));
    let arguments = [
        "config",
        "check",
        "--sandbox",
        "--grpc.tls_cert_file",
        &cert_file,
        "--grpc.tls_key_file",
        &key_file,
        "--grpc.tls_client_ca_file",
        &ca_file,
    ];
    let valid = cli::run(&arguments, &[]).await;
    assert_eq!(valid.code, Some(0), "{valid:?}");
    for line in [
        format!("grpc.tls_cert_file {cert_file}: valid until 4000-01-01T00:00:00Z, "),
        format!("grpc.tls_client_ca_file {ca_file}: valid until 4096-01-01T00:00:00Z, "),
    ] {
        assert!(valid.stdout.contains(&line), "{valid:?}");
    }

    files.write_server(&servers.issue_until(2_000));
    let expired = cli::run(&arguments, &[]).await;
    assert_eq!(expired.code, Some(78), "{expired:?}");
    assert!(expired.stderr.contains("expired at 2000-01-01T00:00:00Z"), "{expired:?}");

    std::fs::copy(&ca_file, &cert_file).unwrap();
    let mismatch = cli::run(&arguments, &[]).await;
    assert_eq!(mismatch.code, Some(78), "{mismatch:?}");
    assert!(mismatch.stderr.contains("does not belong to it"), "{mismatch:?}");

    let setup = with_tls(Setup::sandbox(), &files);
    let exit = setup.start_error().await;
    assert!(exit.log.contains("does not belong to it"), "{exit:?}");
}
