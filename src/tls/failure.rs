//! Counts and logs failed handshakes by reason.

use std::{array, io, net::SocketAddr, time::Duration};

use tokio_rustls::rustls::{CertificateError, Error, PeerIncompatible};

use crate::telemetry::{HandshakeFailure, Instruments, LogThrottle, Port};

/// Interval of the warnings about one reason.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Records the failed handshakes of one port.
pub(super) struct FailureLog {
    port: Port,
    instruments: Instruments,
    throttles: [LogThrottle; HandshakeFailure::ALL.len()],
}

impl FailureLog {
    pub(super) fn new(port: Port, instruments: Instruments) -> Self {
        Self { port, instruments, throttles: array::from_fn(|_| LogThrottle::new(LOG_INTERVAL)) }
    }

    /// Counts a failed handshake. Logs each at debug level, and one warning for each reason and interval.
    pub(super) fn record(&self, reason: HandshakeFailure, client: SocketAddr, error: &str) {
        let (port, client_ip, name) = (self.port.name(), client.ip(), reason.name());
        self.instruments.handshake_failed(self.port, reason);
        tracing::debug!(port, %client_ip, reason = name, error, "TLS handshake failed");
        let throttle = self.throttles.get(reason as usize);
        if let Some(failures) = throttle.and_then(|throttle| throttle.count(1)) {
            tracing::warn!(port, %client_ip, reason = name, failures, "TLS handshakes failed");
        }
    }
}

/// Finds the reason of an error of tokio-rustls.
pub(super) fn classify(error: &io::Error) -> HandshakeFailure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};

    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(cause) => classify_tls(cause),
        None => match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => {
                HandshakeFailure::Closed
            }
            _ => HandshakeFailure::Other,
        },
    }
}

fn classify_tls(error: &Error) -> HandshakeFailure {
    match error {
        Error::NoCertificatesPresented => HandshakeFailure::NoCertificate,
        Error::InvalidCertificate(error) => classify_certificate(error),
        Error::PeerIncompatible(cause) => classify_incompatible(cause),
        Error::NoApplicationProtocol => HandshakeFailure::Alpn,
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        Error::AlertReceived(_) => HandshakeFailure::ClientAlert,
        _ => HandshakeFailure::Other,
    }
}

fn classify_certificate(error: &CertificateError) -> HandshakeFailure {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer,
    };

    match error {
        // The signature does not fit if another authority has the same name.
        UnknownIssuer | BadSignature => HandshakeFailure::UnknownCa,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            HandshakeFailure::ExpiredCertificate
        }
        _ => HandshakeFailure::BadCertificate,
    }
}

fn classify_incompatible(cause: &PeerIncompatible) -> HandshakeFailure {
    use PeerIncompatible::{
        NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon,
        ServerDoesNotSupportTls12Or13, SignatureAlgorithmsExtensionRequired,
        SupportedVersionsExtensionRequired, Tls12NotOffered, Tls12NotOfferedOrEnabled,
    };

    match cause {
        NoCipherSuitesInCommon | NoKxGroupsInCommon | NoSignatureSchemesInCommon => {
            HandshakeFailure::NoSharedCipher
        }
        // Clients before TLS 1.2 do not have the extension for signature algorithms.
        ServerDoesNotSupportTls12Or13
        | SignatureAlgorithmsExtensionRequired
        | SupportedVersionsExtensionRequired
        | Tls12NotOffered
        | Tls12NotOfferedOrEnabled => HandshakeFailure::ProtocolVersion,
        _ => HandshakeFailure::Other,
    }
}
