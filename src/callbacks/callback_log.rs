//! Counts callbacks and logs rejected ones, at a bounded rate.

use std::{array, fmt, net::IpAddr, time::Duration};

use crate::{
    journal::Stored,
    telemetry::{CallbackOutcome, Instruments, LogThrottle, RejectionReason},
};

/// Interval between two messages for the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts all callbacks and logs some of them.
pub(super) struct CallbackLog {
    pub(super) instruments: Instruments,
    /// One for each reason.
    rejections: [LogThrottle; RejectionReason::ALL.len()],
    unlisted: LogThrottle,
}

/// Loggable values of a request. Never its path, which can contain the secret.
#[derive(Clone, Copy)]
pub(super) struct LogContext<'a> {
    pub(super) route: &'static str,
    pub(super) service: Option<&'a str>,
    pub(super) account: Option<&'a str>,
    pub(super) client_ip: Option<IpAddr>,
}

struct OrDash<T>(Option<T>);

// === impl CallbackLog ===

impl CallbackLog {
    pub(super) fn new(instruments: Instruments) -> Self {
        Self {
            instruments,
            rejections: array::from_fn(|_| LogThrottle::new(LOG_INTERVAL)),
            unlisted: LogThrottle::new(LOG_INTERVAL),
        }
    }

    pub(super) fn record_rejected(&self, reason: RejectionReason, context: LogContext<'_>) {
        self.instruments.callback(CallbackOutcome::Rejected, Some(reason));
        self.log_throttled(reason, context, "callback rejected");
    }

    pub(super) fn record_quarantined(&self, reason: RejectionReason, context: LogContext<'_>) {
        self.instruments.callback(CallbackOutcome::Quarantined, Some(reason));
        self.log_throttled(reason, context, "callback quarantined");
    }

    fn log_throttled(
        &self,
        reason: RejectionReason,
        context: LogContext<'_>,
        message: &'static str,
    ) {
        let throttle = self.rejections.get(reason as usize);
        let Some(callbacks) = throttle.and_then(|throttle| throttle.count(1)) else {
            return;
        };
        tracing::warn!(
            reason = reason.name(),
            route = context.route,
            service = %OrDash(context.service),
            account = %OrDash(context.account),
            client_ip = %OrDash(context.client_ip),
            suppressed = callbacks - 1,
            "{message}"
        );
    }

    pub(super) fn record_unlisted(&self, context: LogContext<'_>) {
        self.instruments.callback_outside_allow_cidrs();
        let Some(callbacks) = self.unlisted.count(1) else {
            return;
        };
        tracing::warn!(
            route = context.route,
            service = %OrDash(context.service),
            account = %OrDash(context.account),
            client_ip = %OrDash(context.client_ip),
            suppressed = callbacks - 1,
            "callback accepted from an address outside callbacks.allow_cidrs"
        );
    }
}

/// Counts a stored callback. The sender may have disconnected.
pub(super) fn count_stored(instruments: &Instruments, stored: Stored) {
    let outcome = match stored {
        Stored::New(_) => CallbackOutcome::Stored,
        Stored::Duplicate => CallbackOutcome::Duplicate,
    };
    instruments.callback(outcome, None);
}

// === impl OrDash ===

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}
