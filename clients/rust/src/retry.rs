//! The rules for repeated calls.

use std::time::Duration;

use tokio::time::{self, Instant};
use tonic::{Code, Response, Status};

use crate::{
    CallOptions, GatewayError,
    v1::{Executed, Reason, Retry},
};

/// Returns true if a failed change call must be repeated with the same key: "OK, `executed` = NO,
/// otherwise repeat".
///
/// After `executed` = NO, ThingSpace has executed nothing, and `retry` decides. After any other error the
/// outcome is open, so the call is repeated whatever `retry` says. That includes errors of proxies and of
/// tonic. A call with `validate_only` executes nothing, so `retry` decides.
pub fn must_repeat_change(error: &GatewayError, validate_only: bool) -> bool {
    if validate_only || error.executed() == Executed::No { must_repeat_read(error) } else { true }
}

/// Returns true if a failed call that changes nothing must be repeated, or a stream opened again.
pub fn must_repeat_read(error: &GatewayError) -> bool {
    error.retry() != Retry::Never
}

/// The delays between attempts: 0.1 s, doubled with each failure up to 10 s, with jitter.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: f64 = 0.1;
    const LAST: f64 = 10.0;

    /// Starts again with the shortest delay.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the next delay, which is `retry_after` if the error has one.
    pub fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let longest = (Self::FIRST * f64::from(1 << self.failures.min(10))).min(Self::LAST);
        self.failures = self.failures.saturating_add(1);
        let jitter = 0.5 + fastrand::f64() / 2.0;
        retry_after.unwrap_or_else(|| Duration::from_secs_f64(longest * jitter))
    }
}

/// An attempt that failed and that the library repeats.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedAttempt<'a> {
    /// The number of failed attempts of this call or watch, from 1 on.
    pub number: u32,
    /// The error.
    pub error: &'a GatewayError,
    /// The delay before the next attempt.
    pub delay: Duration,
    /// For a watch, the token with which the stream is opened again.
    pub resume_token: &'a str,
}

/// A kind of unary call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Change,
    Validation,
    Read,
}

impl CallKind {
    fn must_repeat(self, error: &GatewayError) -> bool {
        match self {
            Self::Change => must_repeat_change(error, false),
            Self::Validation => must_repeat_change(error, true),
            Self::Read => must_repeat_read(error),
        }
    }
}

/// Repeats a unary call until it succeeds, cannot succeed, or its time limit passes. `attempt` has the time
/// limit of the attempt as its argument.
pub(crate) async fn repeat<T, F, Fut>(
    kind: CallKind,
    options: &CallOptions,
    has_token_function: bool,
    attempt: F,
) -> Result<T, GatewayError>
where
    F: Fn(Duration) -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let start = Instant::now();
    let (mut backoff, mut number) = (Backoff::default(), 0);
    let (mut refreshed, mut outcome_unknown) = (false, false);
    loop {
        let limit =
            options.attempt_timeout.min(options.total_timeout.saturating_sub(start.elapsed()));
        let status = match time::timeout(limit, attempt(limit)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("no response within {limit:.1?}")),
        };
        let error = GatewayError::from(status);
        number += 1;
        let (repeats, delay);
        if error.code() == Code::Unauthenticated {
            // The gateway executed nothing in this attempt. An earlier attempt remains as it was.
            repeats = has_token_function && !refreshed;
            delay = Duration::ZERO;
            refreshed = true;
        } else if error.reason() == Reason::PermissionDenied {
            // The same holds here, and only an operator can change it.
            repeats = false;
            delay = Duration::ZERO;
        } else {
            if !error.is_not_sent() {
                outcome_unknown = kind == CallKind::Change && error.executed() != Executed::No;
            }
            repeats = kind.must_repeat(&error);
            delay = backoff.next(error.retry_after());
            refreshed = false;
        }
        let error = error.with_outcome_unknown(outcome_unknown);
        if !repeats {
            return Err(error);
        }
        if start.elapsed().saturating_add(delay) >= options.total_timeout {
            let total = options.total_timeout;
            let message =
                format!("no success within {total:?}; the last error: {}", error.message());
            return Err(error.with_message(message));
        }
        options.report(FailedAttempt { number, error: &error, delay, resume_token: "" });
        time::sleep(delay).await;
    }
}
