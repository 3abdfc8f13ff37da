//! The client over TLS, against a server on the loopback interface.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use reqwest::{Certificate, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{HandshakeKind, ServerConfig, crypto::aws_lc_rs::default_provider},
};
use url::Url;

use crate::{
    telemetry::Instruments,
    thingspace::{client::change_client, http::HttpClient},
};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Answers one request of a connection. Returns the kind of the handshake.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> HandshakeKind {
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut request = [0; 1024];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream.write_all(RESPONSE).await.unwrap();
    // The client closes the connection.
    assert_eq!(stream.read(&mut request).await.unwrap_or_default(), 0);
    stream.get_ref().1.handshake_kind().unwrap()
}

#[tokio::test]
async fn each_change_has_a_connection_of_its_own_and_resumes_the_tls_session() {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = pair.signing_key.serialize_der().try_into().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (kinds, mut handshakes) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, kinds) = (acceptor.clone(), kinds.clone());
            tokio::spawn(async move { kinds.send(answer(acceptor, stream).await).await });
        }
    });

    let base_url = Url::parse(&format!("https://localhost:{port}")).unwrap();
    let certificate = Certificate::from_der(pair.cert.der()).unwrap();
    let builder = change_client(&base_url, Duration::from_secs(20)).tls_certs_only([certificate]);
    let client = HttpClient::new(builder, &base_url, 1_024, Instruments::noop()).unwrap();
    let send = async || {
        let request = client.request(Method::POST, "/change", &[]).body("{}");
        client.send(request, "/change", None).await.ok().unwrap()
    };
    send().await;
    assert_eq!(handshakes.recv().await, Some(HandshakeKind::Full));
    for _ in 0..3 {
        send().await;
        assert_eq!(handshakes.recv().await, Some(HandshakeKind::Resumed));
    }
    // A handshake at the same time finds a ticket of an earlier one.
    join_all([send(), send()]).await;
    for _ in 0..2 {
        assert_eq!(handshakes.recv().await, Some(HandshakeKind::Resumed));
    }
}
