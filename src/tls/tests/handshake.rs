//! Handshakes with each reason to fail, on real sockets.

use rcgen::ExtendedKeyUsagePurpose;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::rustls::{
    HandshakeKind,
    crypto::aws_lc_rs::{cipher_suite, default_provider},
    version::TLS12,
};

use super::{
    authority::{Authority, EXPIRED, VALID},
    harness::{Ask, Offer, Protocols, TestPort, VERSIONS, connect},
};
use crate::{
    telemetry::{HandshakeFailure, Port},
    tls::options::{HTTP1, HTTP2},
};

/// The first message of a client that supports TLS 1.1.
const TLS11_HELLO: &[u8] = &[
    0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2, // record, message, version
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31, 0, // no session
    0, 2, 0xc0, 0x13, // TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
    1, 0, // no compression
];

/// Asserts that one handshake has failed, for this reason.
fn assert_failed(port: &TestPort, reason: HandshakeFailure) {
    assert_eq!(port.failed("grpc", reason), 1, "{}", reason.name());
    assert_eq!(port.all_failed(), 1);
}

#[tokio::test]
async fn a_client_gets_a_connection_with_tls_12_and_13() {
    for version in VERSIONS {
        for ask in [Ask::No, Ask::Optional] {
            let port = TestPort::grpc(ask);
            let (accepted, client) = port.handshake(Offer { version, ..Offer::default() }).await;
            client.unwrap();
            let accepted = accepted.unwrap();
            assert!(accepted.peer.certificates.is_none());
            let (_, connection) = accepted.stream.get_ref();
            assert_eq!(connection.protocol_version(), Some(version.version));
            assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
            assert_eq!(port.all_failed(), 0);
        }
    }
}

#[tokio::test]
async fn a_verified_client_certificate_is_part_of_the_peer() {
    for version in VERSIONS {
        for ask in [Ask::Optional, Ask::Required] {
            let port = TestPort::grpc(ask);
            let certificate = port.authority.issue_client();
            let offer = Offer { version, certificate: Some(&certificate), ..Offer::default() };
            let (accepted, client) = port.handshake(offer).await;
            client.unwrap();
            let certificates = accepted.unwrap().peer.certificates.unwrap();
            assert_eq!(certificates.chain(), [certificate.der()]);
            assert!(certificates.is_trusted());
        }
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_not_valid_ends_the_handshake() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

    let (other, same_name) = (Authority::new("other"), Authority::new("clients"));
    for version in VERSIONS {
        for ask in [Ask::Optional, Ask::Required] {
            let port = TestPort::grpc(ask);
            for (certificate, reason) in [
                (other.issue(ClientAuth, VALID), HandshakeFailure::UnknownCa),
                (same_name.issue(ClientAuth, VALID), HandshakeFailure::UnknownCa),
                (port.authority.issue(ClientAuth, EXPIRED), HandshakeFailure::ExpiredCertificate),
                (port.authority.issue(ServerAuth, VALID), HandshakeFailure::BadCertificate),
            ] {
                let before = port.failed("grpc", reason);
                let offer = Offer { version, certificate: Some(&certificate), ..Offer::default() };
                let (accepted, client) = port.handshake(offer).await;
                assert!(accepted.is_none());
                // The client gets an alert, not a broken connection.
                let error = client.unwrap_err().to_string();
                assert!(error.contains("alert"), "{error}");
                assert_eq!(port.failed("grpc", reason), before + 1, "{}", reason.name());
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_a_required_certificate_fails() {
    for version in VERSIONS {
        let port = TestPort::grpc(Ask::Required);
        let (accepted, client) = port.handshake(Offer { version, ..Offer::default() }).await;
        assert!(accepted.is_none() && client.is_err());
        assert_failed(&port, HandshakeFailure::NoCertificate);
    }
}

#[tokio::test]
async fn a_port_for_http2_alone_needs_alpn_and_one_for_http1_does_not() {
    const BOTH: Protocols = &[HTTP2, HTTP1];
    for (name, protocols, alpn, is_accepted) in [
        (Port::Grpc, &[HTTP2][..], Some(HTTP2), true),
        (Port::Grpc, &[HTTP2], None, false),
        (Port::Grpc, &[HTTP2], Some(HTTP1), false),
        (Port::Grpc, BOTH, Some(HTTP2), true),
        (Port::Grpc, BOTH, Some(HTTP1), true),
        (Port::Grpc, BOTH, None, true),
        (Port::Grpc, BOTH, Some(b"h3"), false),
        (Port::Callbacks, &[HTTP1], None, true),
        (Port::Callbacks, &[HTTP1], Some(HTTP1), true),
        (Port::Callbacks, &[HTTP1], Some(HTTP2), false),
    ] {
        let port = TestPort::with_protocols(name, Ask::No, protocols);
        let (accepted, client) = port.handshake(Offer { alpn, ..Offer::default() }).await;
        assert_eq!((accepted.is_some(), client.is_ok()), (is_accepted, is_accepted));
        assert_eq!(port.failed(name.name(), HandshakeFailure::Alpn), u64::from(!is_accepted));
    }
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_gets_a_clean_end() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        &[0; 4_096],
        &[0x16, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        let port = TestPort::grpc(Ask::No);
        let (accepted, end) = port
            .accept(async |mut stream, _| {
                stream.write_all(bytes).await.unwrap();
                let mut alert = Vec::new();
                stream.read_to_end(&mut alert).await.map(|_| alert)
            })
            .await;
        assert!(accepted.is_none());
        // A fatal alert (RFC 8446, section 6), and no reset.
        assert_eq!(end.unwrap().first_chunk(), Some(&[0x15, 3, 3, 0, 2, 2]));
        assert_failed(&port, HandshakeFailure::NotTls);
    }
}

#[tokio::test]
async fn a_client_of_an_old_version_fails() {
    let port = TestPort::grpc(Ask::No);
    let (accepted, ()) = port
        .accept(async |mut stream, _| {
            stream.write_all(TLS11_HELLO).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        })
        .await;
    assert!(accepted.is_none());
    assert_failed(&port, HandshakeFailure::ProtocolVersion);
}

#[tokio::test]
async fn a_client_without_a_common_cipher_suite_fails() {
    let port = TestPort::grpc(Ask::No);
    let mut provider = default_provider();
    // The key of the certificate is not an RSA key.
    provider.cipher_suites = vec![cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let (accepted, client) =
        port.handshake(Offer { version: &TLS12, provider, ..Offer::default() }).await;
    assert!(accepted.is_none() && client.is_err());
    assert_failed(&port, HandshakeFailure::NoSharedCipher);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_gateway_is_counted() {
    let other = Authority::new("other");
    for version in VERSIONS {
        let port = TestPort::grpc(Ask::No);
        let offer = Offer { version, trusts: Some(&other), ..Offer::default() };
        let (accepted, client) = port.handshake(offer).await;
        assert!(accepted.is_none() && client.is_err());
        assert_failed(&port, HandshakeFailure::ClientAlert);
    }
}

#[tokio::test]
async fn a_client_that_closes_counts_only_after_its_first_byte() {
    let port = TestPort::grpc(Ask::No);
    let (accepted, ()) = port.accept(async |_stream: TcpStream, _| ()).await;
    assert!(accepted.is_none());
    assert_eq!(port.all_failed(), 0);
    let (accepted, ()) =
        port.accept(async |mut stream, _| stream.write_all(&[0x16]).await.unwrap()).await;
    assert!(accepted.is_none());
    assert_failed(&port, HandshakeFailure::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_a_time_limit() {
    for bytes in [&[][..], &[0x16, 3, 1]] {
        let port = TestPort::grpc(Ask::No);
        let (accepted, ()) = port
            .accept(async |mut stream, accepted| {
                stream.write_all(bytes).await.unwrap();
                accepted.cancelled().await;
            })
            .await;
        assert!(accepted.is_none());
        assert_failed(&port, HandshakeFailure::Timeout);
    }
}

#[tokio::test]
async fn sessions_with_client_certificates_are_not_resumed() {
    for version in VERSIONS {
        for (ask, expected) in
            [(Ask::No, HandshakeKind::Resumed), (Ask::Optional, HandshakeKind::Full)]
        {
            let port = TestPort::grpc(ask);
            let certificate = port.authority.issue_client();
            let offer = Offer { version, certificate: Some(&certificate), ..Offer::default() };
            let config = port.client_config(offer);
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let (_, kind) = port
                    .accept(async |stream, accepted| {
                        let mut stream = connect(config.clone(), stream).await.unwrap();
                        // Receives the tickets.
                        let _ = accepted.run_until_cancelled(stream.read(&mut [0])).await;
                        stream.get_ref().1.handshake_kind().unwrap()
                    })
                    .await;
                kinds.push(kind);
            }
            assert_eq!(kinds, [HandshakeKind::Full, expected]);
        }
    }
}
