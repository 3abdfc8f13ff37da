//! The time at which a certificate expires, and conversions of points in time.

use std::{fmt, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use x509_parser::{parse_x509_certificate, time::ASN1Time};

use crate::domain::clock::{Clock, Timestamp};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The clock, for rustls.
#[derive(Clone)]
pub(super) struct VerificationClock(pub(super) Arc<dyn Clock>);

/// Returns `notAfter` of a certificate, or `None` if the certificate cannot be parsed.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    Some(Timestamp::from_micros(seconds.saturating_mul(MICROS_PER_SECOND)))
}

/// Seconds since the Unix epoch, 0 for a time before it.
pub(super) fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_micros() / MICROS_PER_SECOND).unwrap_or(0)
}

/// Converts a time for a verifier.
pub(super) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds(time)))
}

/// Formats a time as RFC 3339 does, in seconds.
pub(super) fn format_utc(time: Timestamp) -> String {
    let Ok(time) = ASN1Time::from_timestamp(time.as_micros() / MICROS_PER_SECOND) else {
        return "an unknown time".to_owned();
    };
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

// === impl VerificationClock ===

impl fmt::Debug for VerificationClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerificationClock")
    }
}

impl TimeProvider for VerificationClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}
