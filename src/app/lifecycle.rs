//! The lifecycle of a gateway: build, run, drain.
//!
//! A build binds all ports first, so a failed start has no other effect. A drain is bounded by
//! `shutdown.grace`. Unfinished work is in the journal and continues after the next start.

use std::time::Duration;

use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        embedded_sandbox::{self, EmbeddedSandbox},
        error::StartError,
        ports::{Addresses, Ports},
        wiring::Components,
    },
    config::{Config, Mode},
    journal::Origin,
    telemetry::Telemetry,
};

/// Longest share of the grace that is reserved for the callback listener.
const LISTENER_GRACE: Duration = Duration::from_secs(4);
/// Shortest and longest time to close the journal, also after the grace.
const MIN_CLOSE: Duration = Duration::from_millis(500);
const MAX_CLOSE: Duration = Duration::from_secs(3);
/// Shortest and longest time to send the last telemetry.
const MIN_FLUSH: Duration = Duration::from_millis(200);
const MAX_FLUSH: Duration = Duration::from_secs(3);

/// A gateway that is ready to serve.
pub struct App {
    addresses: Addresses,
    components: Components,
    grace: Duration,
    telemetry: Telemetry,
    /// The directory of a temporary journal. Removed at the end.
    _directory: Option<TempDir>,
}

/// Result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Everything has finished.
    Drained,
    /// The grace expired before everything had finished.
    TimedOut,
}

impl App {
    /// Binds the ports, opens the journal and recovers changes that the last stop interrupted. `shutdown` ends the
    /// wait for a database that is unavailable.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the setting or the component that failed.
    pub async fn build(
        mut config: Config,
        mode: Mode,
        telemetry: Telemetry,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let ports = Ports::bind(&config)?;
        let addresses = ports.addresses;
        let grace = config.shutdown.grace;
        let (sandbox, origin) = match mode {
            Mode::ServeSandbox => {
                let sandbox = EmbeddedSandbox::bind(&mut config, addresses.callbacks).await;
                (Some(sandbox.map_err(StartError::Sandbox)?), Origin::sandbox())
            }
            Mode::Serve | Mode::Sandbox => (None, Origin::from_url(&config.thingspace.base_url)),
        };
        let mut components =
            Components::build(&config, origin, ports, &telemetry, shutdown).await?;
        let directory = sandbox.and_then(|EmbeddedSandbox { sandbox, directory }| {
            let stop = components.stop.clone();
            components.background.push(Box::pin(embedded_sandbox::run(sandbox, stop)));
            directory
        });
        Ok(Self { addresses, components, grace, telemetry, _directory: directory })
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then drains within `shutdown.grace`: first gRPC calls, then their
    /// requests to ThingSpace, then the callback listener, because ThingSpace rarely repeats a callback.
    pub async fn run(self, shutdown: CancellationToken) -> ShutdownOutcome {
        let Addresses { grpc, callbacks, admin, console } = self.addresses;
        tracing::info!(address = %grpc, "gRPC listens on {grpc}");
        tracing::info!(address = %callbacks, "callbacks listen on {callbacks}");
        tracing::info!(address = %admin, "admin listens on {admin}");
        if let Some(console) = console {
            tracing::info!(address = %console, "console listens on {console}");
        }
        let components = self.components;
        let mut background = JoinSet::from_iter(components.background);
        let mut grpc = JoinSet::from_iter(components.grpc);
        let mut callbacks = JoinSet::from_iter([components.callbacks]);
        shutdown.cancelled().await;

        let deadline = Instant::now() + self.grace;
        // The callback listener responds within 3.5 s, whatever time the calls took.
        let calls_deadline = deadline - (self.grace / 4).min(LISTENER_GRACE);
        tracing::info!(grace = ?self.grace, "draining");
        components.draining.cancel();
        components.serving.send_replace(false);
        components.inflight_dispatches.close();
        let mut drained = join_until(&mut grpc, calls_deadline).await;
        drained &= timeout_at(calls_deadline, components.inflight_dispatches.wait()).await.is_ok();
        components.stop.cancel();
        drained &= join_until(&mut callbacks, deadline).await;
        if let Some(spool) = &components.spool {
            // A start with the same directory moves the other callbacks.
            let _ = timeout_at(deadline, spool.drained()).await;
        }
        background.shutdown().await;
        // All acknowledged data is on disk already. A request to ThingSpace that is still in flight
        // keeps its reservation in the journal, and the close does not wait for it. Otherwise a slow disk has more time.
        let left = || deadline.saturating_duration_since(Instant::now());
        let to_close =
            |drained| if drained { left().clamp(MIN_CLOSE, MAX_CLOSE) } else { MIN_CLOSE };
        drained &= timeout(to_close(drained), components.journal.close()).await.is_ok();
        if let Some(spool) = &components.spool {
            drained &= timeout(to_close(drained), spool.close()).await.is_ok();
        }
        // Last, so that it has the end of every call.
        drained &= timeout(to_close(drained), components.audit.close()).await.is_ok();
        self.telemetry.shutdown(left().clamp(MIN_FLUSH, MAX_FLUSH)).await;
        tracing::info!(drained, "stopped");
        if drained { ShutdownOutcome::Drained } else { ShutdownOutcome::TimedOut }
    }
}

/// Waits for tasks until `deadline`, then aborts them. Returns true if all have finished.
async fn join_until(tasks: &mut JoinSet<()>, deadline: Instant) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let in_time = timeout_at(deadline, all).await.is_ok();
    tasks.shutdown().await;
    in_time
}
