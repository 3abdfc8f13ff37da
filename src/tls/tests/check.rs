//! The check of certificates before a start.

use std::fs;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use tempfile::TempDir;

use super::authority::{Authority, EXPIRED};
use crate::{
    config::{Config, Sources},
    domain::clock::Timestamp,
    tls::{CertificateCheck, check_certificates},
};

/// The 12th of December 2029: 20 days before the begin of the year 2030.
const NOW: Timestamp = Timestamp::from_micros(1_891_728_000_000_000);

fn config(directory: &TempDir, keys: &[(&str, &str)]) -> Config {
    let sources = keys.iter().fold(Sources::default(), |sources, (key, file)| {
        sources.with_flag(*key, directory.path().join(file).to_string_lossy())
    });
    Config::load(&sources).unwrap().config
}

const GRPC: [(&str, &str); 3] = [
    ("grpc.tls_cert_file", "cert.pem"),
    ("grpc.tls_key_file", "key.pem"),
    ("grpc.tls_client_ca_file", "ca.pem"),
];
const CALLBACKS: [(&str, &str); 2] =
    [("callbacks.tls_cert_file", "cert.pem"), ("callbacks.tls_key_file", "key.pem")];

#[test]
fn without_tls_there_is_nothing_to_check() {
    let config = Config::load(&Sources::default()).unwrap().config;
    assert_eq!(check_certificates(&config, NOW).unwrap(), CertificateCheck::default());
}

#[test]
fn a_check_shows_the_expiry_of_each_certificate_and_warns_before_it() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    authority.issue(ServerAuth, 2_030).write(directory.path());
    fs::write(directory.path().join("ca.pem"), authority.pem().repeat(2)).unwrap();
    let keys = [&GRPC[..], &CALLBACKS].concat();
    let check = check_certificates(&config(&directory, &keys), NOW).unwrap();
    let path = directory.path().display();
    let ca_days = (67_090_118_400_i64 - 1_891_728_000) / 86_400;
    let ca = |index| {
        format!(
            "grpc.tls_client_ca_file {path}/ca.pem, certificate {index} of 2: valid until \
             4096-01-01T00:00:00Z, {ca_days} days left"
        )
    };
    let server =
        |key| format!("{key} {path}/cert.pem: valid until 2030-01-01T00:00:00Z, 20 days left");
    assert_eq!(
        check.facts,
        [server("grpc.tls_cert_file"), ca(1), ca(2), server("callbacks.tls_cert_file")]
    );
    let warning =
        |key| format!("{key} {path}/cert.pem: expires at 2030-01-01T00:00:00Z, in 20 days");
    assert_eq!(check.warnings, [warning("grpc.tls_cert_file"), warning("callbacks.tls_cert_file")]);
    assert_eq!(check.errors, Vec::<String>::new());
}

#[test]
fn an_expired_certificate_is_an_error_and_an_expired_intermediate_a_warning() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    let expired = authority.issue(ServerAuth, EXPIRED);
    expired.write(directory.path());
    let cert_file = directory.path().join("cert.pem");
    let expired_pem = fs::read_to_string(&cert_file).unwrap();
    let check = check_certificates(&config(&directory, &CALLBACKS), NOW).unwrap();
    let line = |suffix: &str| {
        let path = cert_file.display();
        format!("callbacks.tls_cert_file {path}{suffix}: expired at 2000-01-01T00:00:00Z")
    };
    assert_eq!((check.errors, check.warnings), (vec![line("")], vec![]));

    authority.issue_server().write(directory.path());
    let chain = fs::read_to_string(&cert_file).unwrap() + &expired_pem;
    fs::write(&cert_file, chain).unwrap();
    let check = check_certificates(&config(&directory, &CALLBACKS), NOW).unwrap();
    assert_eq!((check.errors, check.warnings), (vec![], vec![line(", certificate 2 of 2")]));
}

#[test]
fn files_that_cannot_be_used_are_errors() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new("ca"));
    authority.issue_server().write(directory.path());
    let config = config(&directory, &GRPC);
    let error = || check_certificates(&config, NOW).unwrap_err().to_string();
    assert!(error().contains("client CA bundle in") && error().contains("ca.pem"), "{}", error());
    fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
    check_certificates(&config, NOW).unwrap();
    fs::remove_file(directory.path().join("key.pem")).unwrap();
    assert!(error().contains("private key in"), "{}", error());
}
