//! Counts callbacks and logs rejected ones, at a bounded rate.

use std::{array, net::IpAddr, time::Duration};

use crate::{
    callbacks::recent::RecentCallbacks,
    telemetry::{CallbackOutcome, Instruments, LogThrottle, RejectionReason},
};

/// Interval between two messages for the same reason.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Counts all callbacks and logs some of them.
pub(super) struct CallbackLog {
    pub(super) instruments: Instruments,
    pub(super) recent: RecentCallbacks,
    /// One for each reason.
    rejections: [LogThrottle; RejectionReason::ALL.len()],
    unlisted: LogThrottle,
}

/// Loggable values of a request. Never its path, which can contain the secret.
#[derive(Clone, Copy)]
pub(super) struct LogContext<'a> {
    pub(super) route: &'static str,
    /// `-` if the request has none, or none that may be logged.
    pub(super) service: &'a str,
    /// As `service`.
    pub(super) account: &'a str,
    pub(super) client_ip: Option<IpAddr>,
}

impl CallbackLog {
    pub(super) fn new(instruments: Instruments) -> Self {
        Self {
            instruments,
            recent: RecentCallbacks::default(),
            rejections: array::from_fn(|_| LogThrottle::new(LOG_INTERVAL)),
            unlisted: LogThrottle::new(LOG_INTERVAL),
        }
    }

    pub(super) fn record_rejected(&self, reason: RejectionReason, context: LogContext<'_>) {
        self.instruments.callback(CallbackOutcome::Rejected, Some(reason));
        self.log(Some(reason), context, "callback rejected");
    }

    pub(super) fn record_quarantined(&self, reason: RejectionReason, context: LogContext<'_>) {
        self.instruments.callback(CallbackOutcome::Quarantined, Some(reason));
        self.log(Some(reason), context, "callback quarantined");
    }

    pub(super) fn record_unlisted(&self, context: LogContext<'_>) {
        self.instruments.callback_outside_allow_cidrs();
        let message = "callback accepted from an address outside callbacks.allow_cidrs";
        self.log(None, context, message);
    }

    fn log(&self, reason: Option<RejectionReason>, context: LogContext<'_>, message: &str) {
        let throttle = reason.and_then(|reason| self.rejections.get(reason as usize));
        let Some(callbacks) = throttle.unwrap_or(&self.unlisted).count(1) else {
            return;
        };
        tracing::warn!(
            reason = reason.map(RejectionReason::name),
            route = context.route,
            service = %context.service,
            account = %context.account,
            client_ip = %context.client_ip.map_or("-".to_owned(), |ip| ip.to_string()),
            suppressed = callbacks - 1,
            "{message}"
        );
    }
}
