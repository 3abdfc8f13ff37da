//! Trust in the certificate of an open connection.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use tokio::time::timeout;

use super::{
    authority::{Authority, Issued, VALID},
    harness::{Ask, Offer, TestPort},
};
use crate::{background::FileReloader, tls::PeerCertificates};

async fn connect(port: &TestPort, certificate: &Issued) -> Arc<PeerCertificates> {
    let offer = Offer { certificate: Some(certificate), ..Offer::default() };
    let (accepted, client) = port.handshake(offer).await;
    client.unwrap();
    accepted.unwrap().peer.certificates.unwrap()
}

/// Re-reads the files of a port every two seconds.
fn reload(port: &TestPort) -> impl Future<Output = ()> + use<> {
    let mut files = FileReloader::default();
    port.tls.reload_with(&mut files);
    files.run()
}

#[tokio::test]
async fn a_removed_authority_is_not_trusted_on_open_connections_and_in_handshakes() {
    let port = TestPort::grpc(Ask::Required);
    let (second, old, new) =
        (Authority::new("second"), port.authority.issue_client(), Authority::new("second"));
    port.write_cas(&(port.authority.pem() + &second.pem()));
    let mut reload = pin!(reload(&port).fuse());
    let (first_peer, mut changed) = {
        let peer = connect(&port, &old).await;
        let changed = peer.subscribe();
        (peer, changed)
    };
    // The bundle has a second authority.
    tokio::select! {
        () = &mut reload => unreachable!(),
        result = changed.changed() => result.unwrap(),
    }
    assert!(first_peer.is_trusted());
    let second_peer = connect(&port, &second.issue_client()).await;

    // Only the second one is left.
    port.write_cas(&second.pem());
    tokio::select! {
        () = &mut reload => unreachable!(),
        () = first_peer.wait_until_untrusted() => {}
    }
    assert!(!first_peer.is_trusted() && second_peer.is_trusted());
    assert!(second_peer.wait_until_untrusted().now_or_never().is_none());
    // A handshake may use the previous configuration until the change is announced. Its generation makes the peer be
    // verified again.
    let is_refused = async {
        loop {
            let offer = Offer { certificate: Some(&old), ..Offer::default() };
            match port.handshake(offer).await {
                (Some(accepted), _) => assert!(!accepted.peer.certificates.unwrap().is_trusted()),
                (None, client) => return client.unwrap_err(),
            }
        }
    };
    tokio::select! {
        () = &mut reload => unreachable!(),
        _error = is_refused => {}
    }

    // Another authority with the same name does not stand for the second one.
    port.write_cas(&new.pem());
    tokio::select! {
        () = &mut reload => unreachable!(),
        () = second_peer.wait_until_untrusted() => {}
    }

    // A restored authority is trusted again.
    port.write_cas(&port.authority.pem());
    let mut changed = first_peer.subscribe();
    tokio::select! {
        () = &mut reload => unreachable!(),
        result = changed.changed() => result.unwrap(),
    }
    assert!(first_peer.is_trusted() && !second_peer.is_trusted());
}

#[tokio::test]
async fn a_certificate_is_not_trusted_after_its_expiry() {
    let port = TestPort::grpc(Ask::Required);
    let peer = connect(&port, &port.authority.issue(ClientAuth, 2_030)).await;
    let other = connect(&port, &port.authority.issue(ClientAuth, VALID)).await;
    // The begin of the year 2030.
    assert_eq!(peer.expires_at().as_micros(), 1_893_456_000_000_000);
    port.clock.set(peer.expires_at().minus(Duration::from_secs(1)));
    assert!(peer.is_trusted() && other.is_trusted());
    port.clock.set(peer.expires_at().plus(Duration::from_secs(1)));
    assert!(!peer.is_trusted() && other.is_trusted());
    peer.wait_until_untrusted().await;
}

#[tokio::test]
async fn an_expiry_is_noticed_although_the_clock_was_set() {
    let port = TestPort::grpc(Ask::Required);
    let peer = connect(&port, &port.authority.issue(ClientAuth, 2_030)).await;
    tokio::time::pause();
    let set_clock = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        port.clock.set(peer.expires_at().plus(Duration::from_secs(1)));
    };
    let noticed = timeout(Duration::from_secs(120), peer.wait_until_untrusted());
    let (noticed, ()) = tokio::join!(noticed, set_clock);
    noticed.unwrap();
}

#[tokio::test]
async fn a_large_chain_is_refused() {
    let port = TestPort::grpc(Ask::Required);
    let certificate = port.authority.issue_client();
    let (accepted, _) = port
        .handshake(Offer { certificate: Some(&certificate), padding: 60, ..Offer::default() })
        .await;
    assert!(accepted.is_none());
    assert_eq!(port.failed("grpc", crate::telemetry::HandshakeFailure::BadCertificate), 1);
}
