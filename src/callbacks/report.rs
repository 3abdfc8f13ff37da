//! Tells operators what was refused, without letting strangers fill the log.

use std::{fmt, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::Refusal;
use crate::{journal::Stored, telemetry::Instruments};

/// At most one line for each reason in this time; the next one says how many
/// were left out.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Counts everything and logs some of it.
pub(super) struct Report {
    pub(super) instruments: Instruments,
    refused: [Lines; Refusal::ALL.len()],
    unlisted: Lines,
}

/// What may be said about a request. Never its path, which may have a secret.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) route: &'static str,
    pub(super) service: Option<&'a str>,
    pub(super) account: Option<&'a str>,
    pub(super) source: Option<IpAddr>,
}

/// When a line was last written, and how many have been left out since.
#[derive(Default)]
struct Lines(Mutex<(Option<Instant>, u64)>);

struct Shown<T>(Option<T>);

// === impl Report ===

impl Report {
    pub(super) fn new(instruments: Instruments) -> Self {
        Self {
            instruments,
            refused: Default::default(),
            unlisted: Lines::default(),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal, about: About<'_>) {
        self.instruments.callback("refused", Some(refusal.name()));
        self.warn(refusal, about, "a callback was refused");
    }

    /// A callback cannot be used, for this reason, and is kept.
    pub(super) fn kept(&self, reason: Refusal, about: About<'_>) {
        self.instruments
            .callback("quarantined", Some(reason.name()));
        let what = "a callback cannot be used and is in the quarantine";
        self.warn(reason, about, what);
    }

    /// A line for each reason and second at most.
    fn warn(&self, reason: Refusal, about: About<'_>, what: &'static str) {
        let lines = self.refused.get(reason as usize);
        let Some(left_out) = lines.and_then(Lines::next) else {
            return;
        };
        tracing::warn!(
            reason = reason.name(),
            route = about.route,
            service = %Shown(about.service),
            account = %Shown(about.account),
            source = %Shown(about.source),
            left_out,
            "{what}"
        );
    }

    pub(super) fn unlisted(&self, about: About<'_>) {
        self.instruments.unlisted();
        let Some(left_out) = self.unlisted.next() else {
            return;
        };
        tracing::warn!(
            route = about.route,
            service = %Shown(about.service),
            account = %Shown(about.account),
            source = %Shown(about.source),
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

impl Lines {
    /// How many were left out, if a line may be written now.
    fn next(&self) -> Option<u64> {
        let now = Instant::now();
        let (last, left_out) = &mut *self.0.lock();
        if last.is_some_and(|last| now.duration_since(last) < BETWEEN_LINES) {
            *left_out = left_out.saturating_add(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(left_out))
    }
}

// === impl Shown ===

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}
