//! The settings of a connection: the URL, the password file, and TLS.

use std::{fmt::Display, path::PathBuf, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use secrecy::ExposeSecret as _;
use thingspace_loopback::{is_loopback_ip, is_loopback_name};
use thingspace_settings::Secret;
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};

use crate::journal::postgres::error::PostgresError;

/// Maximum duration of a statement on the server.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_PORT: u16 = 5432;
/// Time after which a server closes a connection whose data is not acknowledged.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a response to arrive, beyond the duration of the statement.
const NETWORK_MARGIN: Duration = Duration::from_secs(5);

/// The settings of a connection.
pub(super) struct ConnectionSettings {
    config: Config,
    tls: MakeRustlsConnect,
    password: Option<Secret>,
}

/// A URL that cannot be used. The message has no part of the URL except names of parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

/// The parameters of a URL that this module interprets.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    root_file: Option<PathBuf>,
}

impl ConnectionSettings {
    /// Parses a URL as libpq does: `postgresql://user@host1,host2:5433/database?sslmode=verify-full`.
    pub(super) fn parse(url: &Secret, password: Option<Secret>) -> Result<Self, UrlError> {
        let url = url.load().map_err(|error| UrlError(error.to_string()))?;
        let (url, parameters) = take_tls_parameters(url.expose_secret())?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            UrlError(source.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(UrlError("it names no host".into()));
        }
        if config.get_user().is_none() {
            return Err(UrlError("it names no user".into()));
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(3));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_TIMEOUT);
        }
        config.keepalives_idle(TCP_TIMEOUT / 2);
        config.keepalives_interval(TCP_TIMEOUT / 4);
        config.keepalives_retries(2);
        if config.get_application_name().is_none() {
            config.application_name("thingspace-gateway");
        }
        let has_tls = match parameters.mode.as_deref() {
            Some("disable") => false,
            Some("require" | "verify-full") => true,
            None => !config.get_hosts().iter().all(is_local),
            Some(_) => {
                let expected =
                    "sslmode must be `disable` or `verify-full`: TLS always verifies the server";
                return Err(UrlError(expected.into()));
            }
        };
        config.ssl_mode(if has_tls { SslMode::Require } else { SslMode::Disable });
        let roots = if has_tls { roots(parameters.root_file)? } else { RootCertStore::empty() };
        Ok(Self { config, tls: tls(roots)?, password })
    }

    /// Returns the configuration of a connection, with the present password.
    pub(super) fn config(&self) -> Result<Config, PostgresError> {
        let mut config = self.config.clone();
        if let Some(password) = &self.password {
            // Read at each connection, so that a rotation takes effect.
            let password = password
                .load()
                .map_err(|error| PostgresError::new(format!("journal.password: {error}")))?;
            config.password(password.expose_secret());
        }
        Ok(config)
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Maximum time to wait for a response.
    pub(super) fn response_timeout(&self) -> Duration {
        STATEMENT_TIMEOUT + NETWORK_MARGIN
    }
}

/// Names the hosts and the database of a URL, without its user and password. Returns `None` if the URL cannot be used.
pub(super) fn name_database(url: &Secret) -> Option<String> {
    let config = ConnectionSettings::parse(url, None).ok()?.config;
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.last()).copied().unwrap_or(DEFAULT_PORT);
    let mut hosts: Vec<String> = config.get_hosts().iter().map(name_host).collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let hosts = hosts.iter().enumerate().map(|(index, host)| format!("{host}:{}", port(index)));
    let database = config.get_dbname().or(config.get_user())?;
    Some(format!("postgresql://{}/{database}", hosts.collect::<Vec<_>>().join(",")))
}

fn name_host(host: &Host) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Removes `sslmode` and `sslrootcert` from a URL.
fn take_tls_parameters(url: &str) -> Result<(String, TlsParameters), UrlError> {
    if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
        return Err(UrlError("it must begin with postgresql://".into()));
    }
    let mut parameters = TlsParameters::default();
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), parameters));
    };
    let mut others = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        match name {
            "sslmode" => parameters.mode = Some(value.into_owned()),
            "sslrootcert" => parameters.root_file = Some(PathBuf::from(value.as_ref())),
            _ => others.push(pair),
        }
    }
    let separator = if others.is_empty() { "" } else { "?" };
    Ok((format!("{base}{separator}{}", others.join("&")), parameters))
}

/// True if a server is on this machine.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => is_loopback_name(name) || name.parse().is_ok_and(is_loopback_ip),
        Host::Unix(_) => true,
    }
}

/// Returns the certificates that servers are verified with: those of a file, or of the system.
fn roots(file: Option<PathBuf>) -> Result<RootCertStore, UrlError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let invalid = |error: &dyn Display| {
                UrlError(format!("cannot read sslrootcert {}: {error}", file.display()))
            };
            let certificates =
                CertificateDer::pem_file_iter(&file).map_err(|error| invalid(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| invalid(&error))?;
                roots.add(certificate).map_err(|error| invalid(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(UrlError("there is no certificate to verify the server with".into()));
    }
    Ok(roots)
}

fn tls(roots: RootCertStore) -> Result<MakeRustlsConnect, UrlError> {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| UrlError(error.to_string()))?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests;
