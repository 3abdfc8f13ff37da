//! The reload of certificates and CA bundles.

use std::{fs, path::PathBuf, sync::Arc};

use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use super::{
    authority::Authority,
    harness::{Ask, TestClock, TestPort},
};
use crate::tls::{
    ClientCertificates, TlsError, certificate::ReloadingCertificate, client_cas::ReloadingClientCas,
};

fn paths(directory: &TempDir) -> (PathBuf, PathBuf) {
    (directory.path().join("cert.pem"), directory.path().join("key.pem"))
}

fn load(directory: &TempDir) -> Result<ReloadingCertificate, TlsError> {
    let (cert_file, key_file) = paths(directory);
    ReloadingCertificate::load(cert_file, key_file, Arc::new(default_provider()))
}

fn load_cas(directory: &TempDir) -> Result<Arc<ReloadingClientCas>, TlsError> {
    let ca_file = directory.path().join("ca.pem");
    let client_certificates = ClientCertificates::Required { ca_file };
    let provider = Arc::new(default_provider());
    let cas = ReloadingClientCas::load(&client_certificates, provider, TestClock::new());
    cas.map(Option::unwrap)
}

#[test]
fn an_error_names_its_file_and_not_its_content() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    let (cert_file, key_file) = paths(&directory);
    let error = load(&directory).unwrap_err().to_string();
    assert!(error.contains("certificate in") && error.contains("cert.pem"), "{error}");

    authority.issue_server().write(directory.path());
    for content in ["", "planted", "-----BEGIN PRIVATE KEY-----planted\n"] {
        fs::write(&key_file, content).unwrap();
        let error = load(&directory).unwrap_err().to_string();
        assert!(error.contains("private key in") && error.contains("key.pem"), "{error}");
        assert!(!error.contains("planted"), "{error}");
    }

    authority.issue_server().write(directory.path());
    let other = tempfile::tempdir().unwrap();
    authority.issue_server().write(other.path());
    fs::copy(other.path().join("key.pem"), &key_file).unwrap();
    let error = load(&directory).unwrap_err().to_string();
    assert!(error.contains("key.pem does not belong to it"), "{error}");

    fs::write(&cert_file, "x".repeat(1024 * 1024 + 1)).unwrap();
    let error = load(&directory).unwrap_err().to_string();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
}

#[test]
fn a_broken_or_mismatched_pair_keeps_the_last_certificate() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    let (old, new) = (authority.issue_server(), authority.issue_server());
    old.write(directory.path());
    let (cert_file, key_file) = paths(&directory);
    let certificate = load(&directory).unwrap();
    let chain = || -> Vec<CertificateDer<'static>> { certificate.current().cert.clone() };
    let assert_rejected = || {
        assert!(certificate.reload().is_err());
        assert_eq!(chain(), [old.der()]);
    };
    assert!(!certificate.reload().unwrap(), "nothing has changed");

    let pair = tempfile::tempdir().unwrap();
    new.write(pair.path());
    fs::write(&cert_file, "not a certificate").unwrap();
    assert_rejected();
    // The key of another certificate: a renewal that has written one file so far.
    fs::copy(pair.path().join("cert.pem"), &cert_file).unwrap();
    assert_rejected();
    fs::remove_file(&key_file).unwrap();
    assert_rejected();
    fs::copy(pair.path().join("key.pem"), &key_file).unwrap();
    assert!(certificate.reload().unwrap());
    assert_eq!(chain(), [new.der()]);
}

#[test]
fn a_broken_ca_bundle_keeps_the_last_one_and_a_changed_one_has_the_next_generation() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    let file = directory.path().join("ca.pem");
    assert!(load_cas(&directory).is_err());
    fs::write(&file, authority.pem()).unwrap();
    let cas = load_cas(&directory).unwrap();
    assert!(!cas.reload().unwrap(), "nothing has changed");
    let broken = [
        String::new(),
        "not a certificate".to_owned(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        authority.pem().repeat(257),
    ];
    for broken in broken {
        fs::write(&file, broken).unwrap();
        assert!(cas.reload().is_err());
        assert_eq!(cas.generation(), 1);
    }
    fs::write(&file, authority.pem() + &Authority::new("other").pem()).unwrap();
    assert!(cas.reload().unwrap());
    assert_eq!((cas.generation(), *cas.subscribe().borrow()), (2, 1));
    cas.announce();
    assert_eq!((cas.generation(), *cas.subscribe().borrow()), (2, 2));
}

#[test]
fn the_names_of_many_authorities_are_not_sent_to_clients() {
    let directory = tempfile::tempdir().unwrap();
    let authorities = |count: usize, length: usize| -> String {
        (0..count).map(|index| Authority::new(&format!("{index:0length$}")).pem()).collect()
    };
    for (count, length, is_sent) in [(2, 60, true), (20, 1_000, false)] {
        fs::write(directory.path().join("ca.pem"), authorities(count, length)).unwrap();
        let cas = load_cas(&directory).unwrap();
        assert_eq!(!cas.current().verifier.root_hint_subjects().is_empty(), is_sent);
    }
}

#[tokio::test]
async fn the_metrics_show_the_expiry_of_the_certificate_and_of_the_ca_bundle() {
    let port = TestPort::grpc(Ask::Optional);
    let expiry = |kind: &str| {
        port.telemetry.sample(&format!(
            "thingspace_gateway_tls_certificate_expiry_seconds{{thingspace_gateway_kind=\"{kind}\",\
             thingspace_gateway_port=\"grpc\"}}"
        ))
    };
    // The begin of the years 4000 and 4096.
    assert_eq!((expiry("server"), expiry("client_ca")), (64_060_588_800, 67_090_118_400));
}
