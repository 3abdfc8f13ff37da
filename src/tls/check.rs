//! Checks the certificates of the settings, for `config check`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};

use crate::{
    config::Config,
    domain::clock::Timestamp,
    tls::{
        certificate::load_key_pair,
        client_cas::read_cas,
        error::TlsError,
        options::{ClientCertificates, TlsOptions},
        validity::{format_utc, not_after},
    },
};

/// Time before the expiry of a certificate from which a check warns.
const WARN_BEFORE: Duration = Duration::from_secs(21 * SECONDS_PER_DAY);
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The result of a check of all certificates.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CertificateCheck {
    /// One line for each certificate: setting, file, expiry, days left.
    pub facts: Vec<String>,
    /// Certificates that expire soon, one line each.
    pub warnings: Vec<String>,
    /// Certificates that have expired, one line each. They make the settings invalid.
    pub errors: Vec<String>,
}

/// A certificate to check.
struct Entry {
    key: String,
    file: PathBuf,
    /// Position in its file, from 1, and number of certificates in it.
    position: (usize, usize),
    der: CertificateDer<'static>,
    /// False for the certificates between that of the port and its authority. Clients may not need them.
    is_required: bool,
}

/// Reads the certificates of all ports, and checks their keys and their expiry.
///
/// # Errors
///
/// [`TlsError`] if a file cannot be used.
pub fn check_certificates(config: &Config, now: Timestamp) -> Result<CertificateCheck, TlsError> {
    let provider = Arc::new(default_provider());
    let mut check = CertificateCheck::default();
    for options in [TlsOptions::grpc(config), TlsOptions::callbacks(config)].into_iter().flatten() {
        for entry in entries(&options, &provider)? {
            check.add(&entry, now);
        }
    }
    Ok(check)
}

fn entries(options: &TlsOptions, provider: &Arc<CryptoProvider>) -> Result<Vec<Entry>, TlsError> {
    let chain = load_key_pair(&options.cert_file, &options.key_file, provider)?.cert;
    let cas = read_cas(&options.client_certificates, provider)?;
    let ca_file = options.client_certificates.ca_file().cloned().unwrap_or_default();
    let (chain_len, cas_len) = (chain.len(), cas.len());
    let chain = chain.into_iter().enumerate().map(|(index, der)| Entry {
        key: options.cert_key(),
        file: options.cert_file.clone(),
        position: (index + 1, chain_len),
        der,
        is_required: index == 0,
    });
    let cas = cas.into_iter().enumerate().map(|(index, der)| Entry {
        key: ClientCertificates::CA_KEY.to_owned(),
        file: ca_file.clone(),
        position: (index + 1, cas_len),
        der,
        is_required: true,
    });
    Ok(chain.chain(cas).collect())
}

// === impl CertificateCheck ===

impl CertificateCheck {
    fn add(&mut self, entry: &Entry, now: Timestamp) {
        let name = entry.name();
        let Some(not_after) = not_after(&entry.der) else {
            return self.errors.push(format!("{name}: cannot be parsed"));
        };
        let until = format_utc(not_after);
        if not_after <= now {
            let line = format!("{name}: expired at {until}");
            self.facts.push(line.clone());
            let lines = if entry.is_required { &mut self.errors } else { &mut self.warnings };
            return lines.push(line);
        }
        let left = not_after.since(now);
        let days = left.as_secs() / SECONDS_PER_DAY;
        self.facts.push(format!("{name}: valid until {until}, {days} days left"));
        if left < WARN_BEFORE {
            self.warnings.push(format!("{name}: expires at {until}, in {days} days"));
        }
    }
}

// === impl Entry ===

impl Entry {
    fn name(&self) -> String {
        let (key, file) = (&self.key, self.file.display());
        match self.position {
            (_, 1) => format!("{key} {file}"),
            (index, count) => format!("{key} {file}, certificate {index} of {count}"),
        }
    }
}
