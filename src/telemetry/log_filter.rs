//! The filter of log lines, which operators can change while the gateway runs.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::{config::parse_log_filter, telemetry::error::TelemetryError};

/// The log filter of the process. Cheap to clone.
#[derive(Clone)]
pub struct LogFilter(Arc<Mutex<State>>);

struct State {
    /// `None` in tests, which have no subscriber.
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    /// `telemetry.log_filter`.
    configured: String,
    current: String,
    /// The task that restores the configured filter, and when.
    restore: Option<(Instant, AbortOnDropHandle<()>)>,
}

impl LogFilter {
    pub(super) fn new(
        handle: Option<reload::Handle<EnvFilter, Registry>>,
        configured: String,
    ) -> Self {
        let current = configured.clone();
        Self(Arc::new(Mutex::new(State { handle, configured, current, restore: None })))
    }

    /// Returns the filter in effect, and the time at which the configured one applies again.
    pub fn current(&self) -> (String, Option<Instant>) {
        let state = self.0.lock();
        (state.current.clone(), state.restore.as_ref().map(|(at, _task)| *at))
    }

    /// Checks the syntax of a filter.
    ///
    /// # Errors
    ///
    /// An invalid filter.
    pub fn check(filter: &str) -> Result<(), TelemetryError> {
        parse_log_filter(filter)?;
        Ok(())
    }

    /// Applies a filter (syntax of tracing's `EnvFilter`), for a duration or until a restart. An empty one applies
    /// the configured filter again. Must be called in a Tokio runtime.
    ///
    /// # Errors
    ///
    /// An invalid filter. The present one stays.
    pub fn set(&self, filter: &str, duration: Option<Duration>) -> Result<(), TelemetryError> {
        let mut state = self.0.lock();
        let is_configured = filter.is_empty();
        let filter = if is_configured { state.configured.clone() } else { filter.to_owned() };
        state.apply(filter)?;
        state.restore = duration.filter(|_| !is_configured).map(|duration| {
            let (this, at) = (Arc::downgrade(&self.0), Instant::now() + duration);
            let task = tokio::spawn(async move {
                sleep_until(at).await;
                if let Some(state) = this.upgrade() {
                    state.lock().restore();
                }
            });
            (at, AbortOnDropHandle::new(task))
        });
        Ok(())
    }
}

impl State {
    fn apply(&mut self, filter: String) -> Result<(), TelemetryError> {
        let parsed = parse_log_filter(&filter)?;
        if let Some(handle) = &self.handle {
            handle.reload(parsed)?;
        }
        self.current = filter;
        Ok(())
    }

    fn restore(&mut self) {
        match self.apply(self.configured.clone()) {
            Ok(()) => {
                tracing::info!(filter = self.current, "the configured log filter applies again")
            }
            Err(error) => tracing::error!(%error, "cannot apply the configured log filter again"),
        }
        // Dropping the handle aborts this task, which has nothing left to do.
        self.restore = None;
    }
}

#[cfg(test)]
mod tests;
