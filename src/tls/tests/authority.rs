//! Certificate authorities and certificates for tests.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A year in which the certificates of the tests are valid.
pub(in crate::tls) const VALID: i32 = 4_000;
/// A year that has passed.
pub(in crate::tls) const EXPIRED: i32 = 2_000;

pub(in crate::tls) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub(in crate::tls) struct Issued {
    cert: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    /// Creates an authority with this name.
    pub(in crate::tls) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(in crate::tls) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(in crate::tls) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Issues a certificate for `localhost` that is valid until this year begins.
    pub(in crate::tls) fn issue(&self, usage: ExtendedKeyUsagePurpose, until: i32) -> Issued {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(1_990, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        Issued { cert: params.signed_by(&key, &self.0).unwrap(), key }
    }

    pub(in crate::tls) fn issue_server(&self) -> Issued {
        self.issue(ExtendedKeyUsagePurpose::ServerAuth, VALID)
    }

    pub(in crate::tls) fn issue_client(&self) -> Issued {
        self.issue(ExtendedKeyUsagePurpose::ClientAuth, VALID)
    }
}

impl Issued {
    pub(in crate::tls) fn der(&self) -> CertificateDer<'static> {
        self.cert.der().clone()
    }

    pub(in crate::tls) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.serialize_der().try_into().unwrap()
    }

    /// Writes `cert.pem` and `key.pem`.
    pub(in crate::tls) fn write(&self, directory: &Path) {
        fs::write(directory.join("cert.pem"), self.cert.pem()).unwrap();
        fs::write(directory.join("key.pem"), self.key.serialize_pem()).unwrap();
    }
}
