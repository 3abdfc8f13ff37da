//! Tells operators what was refused, without letting strangers fill the log.

use std::{fmt, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::response::CallbackRefusal;
use crate::{journal::Stored, telemetry::Instruments};

/// At most one line for each reason in this time; the next one says how many
/// were left out.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts everything and logs some of it.
pub(super) struct CallbackLog {
    pub(super) instruments: Instruments,
    refusal_throttles: [LogThrottle; CallbackRefusal::ALL.len()],
    unlisted_throttle: LogThrottle,
}

/// What may be said about a request. Never its path, which may have a secret.
#[derive(Clone, Copy)]
pub(super) struct LogContext<'a> {
    pub(super) route: &'static str,
    pub(super) service: Option<&'a str>,
    pub(super) account: Option<&'a str>,
    pub(super) source: Option<IpAddr>,
}

/// When a line was last written, and how many have been left out since.
#[derive(Default)]
struct LogThrottle(Mutex<(Option<Instant>, u64)>);

struct OrDash<T>(Option<T>);

// === impl Report ===

impl CallbackLog {
    pub(super) fn new(instruments: Instruments) -> Self {
        Self {
            instruments,
            refusal_throttles: Default::default(),
            unlisted_throttle: LogThrottle::default(),
        }
    }

    pub(super) fn record_refused(&self, refusal: CallbackRefusal, context: LogContext<'_>) {
        self.instruments.callback("refused", Some(refusal.name()));
        self.log_throttled(refusal, context, "a callback was refused");
    }

    /// A callback cannot be used, for this reason, and is kept.
    pub(super) fn record_quarantined(&self, reason: CallbackRefusal, context: LogContext<'_>) {
        self.instruments
            .callback("quarantined", Some(reason.name()));
        let what = "a callback cannot be used and is in the quarantine";
        self.log_throttled(reason, context, what);
    }

    /// A line for each reason and second at most.
    fn log_throttled(&self, reason: CallbackRefusal, context: LogContext<'_>, what: &'static str) {
        let lines = self.refusal_throttles.get(reason as usize);
        let Some(left_out) = lines.and_then(LogThrottle::allow) else {
            return;
        };
        tracing::warn!(
            reason = reason.name(),
            route = context.route,
            service = %OrDash(context.service),
            account = %OrDash(context.account),
            source = %OrDash(context.source),
            left_out,
            "{what}"
        );
    }

    pub(super) fn record_unlisted(&self, context: LogContext<'_>) {
        self.instruments.record_unlisted_callback();
        let Some(left_out) = self.unlisted_throttle.allow() else {
            return;
        };
        tracing::warn!(
            route = context.route,
            service = %OrDash(context.service),
            account = %OrDash(context.account),
            source = %OrDash(context.source),
            left_out,
            "a callback was accepted from an address outside the allow-list"
        );
    }
}

/// Counts what was stored, also when its sender has gone by then.
pub(super) fn count_stored(instruments: &Instruments, stored: Stored) {
    let outcome = match stored {
        Stored::New(_) => "stored",
        Stored::Duplicate => "duplicate",
    };
    instruments.callback(outcome, None);
}

// === impl Lines ===

impl LogThrottle {
    /// How many were left out, if a line may be written now.
    fn allow(&self) -> Option<u64> {
        let now = Instant::now();
        let (last, left_out) = &mut *self.0.lock();
        if last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            *left_out = left_out.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

// === impl Shown ===

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}
