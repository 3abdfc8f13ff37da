//! The lifecycle of a gateway: build, run, drain.
//!
//! A build binds all ports first, so a failed start has no other effect. A drain is bounded by
//! `shutdown.grace`. Unfinished work is in the journal and continues after the next start.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{
        admin_api::{self, AdminState},
        admin_port, admin_socket,
        embedded_sandbox::{EmbeddedSandbox, RunningSandbox},
        error::StartError,
        ports::{Addresses, BoundPorts},
        wiring::Components,
    },
    config::{Config, Mode},
    journal::{Journal, Origin},
    telemetry::Telemetry,
};

/// Longest share of the grace that is reserved for the callback listener.
const LISTENER_GRACE: Duration = Duration::from_secs(4);
/// Time to close the journal, in addition to the grace.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// Shortest and longest time to send the last telemetry.
const MIN_FLUSH: Duration = Duration::from_millis(200);
const MAX_FLUSH: Duration = Duration::from_secs(3);

/// A gateway that is ready to serve.
pub struct App {
    addresses: Addresses,
    ports: BoundPorts,
    components: Components,
    config: Config,
    sandbox: Option<EmbeddedSandbox>,
    telemetry: Telemetry,
}

/// Result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Everything has finished.
    Drained,
    /// The grace expired before everything had finished.
    TimedOut,
}

/// A serving gateway.
struct RunningApp {
    grpc: JoinSet<()>,
    callbacks: JoinSet<()>,
    background: JoinSet<()>,
    journal: Arc<dyn Journal>,
    inflight_dispatches: TaskTracker,
    serving: watch::Sender<bool>,
    draining: CancellationToken,
    stop: CancellationToken,
    sandbox: Option<RunningSandbox>,
    telemetry: Telemetry,
}

// === impl App ===

impl App {
    /// Binds the ports, opens the journal and recovers changes that the last stop interrupted.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the setting or the component that failed.
    pub async fn build(
        mut config: Config,
        mode: Mode,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let ports = BoundPorts::bind(&config).await?;
        let addresses = ports.addresses()?;
        let (sandbox, origin) = match mode {
            Mode::ServeSandbox => {
                let sandbox = EmbeddedSandbox::bind(&mut config, addresses.callbacks).await;
                let sandbox = sandbox.map_err(StartError::Sandbox)?;
                (Some(sandbox), Origin::sandbox())
            }
            Mode::Serve | Mode::Sandbox => (None, Origin::from_url(&config.thingspace.base_url)),
        };
        let components = Components::build(&config, origin, &telemetry).await?;
        Ok(Self { addresses, ports, components, config, sandbox, telemetry })
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then drains within `shutdown.grace`.
    pub async fn run(self, shutdown: CancellationToken) -> ShutdownOutcome {
        let grace = self.config.shutdown.grace;
        let running = self.start();
        shutdown.cancelled().await;
        running.drain(grace).await
    }

    /// Starts all tasks.
    fn start(self) -> RunningApp {
        self.addresses.log();
        let (components, ports, config) = (self.components, self.ports, self.config);
        let (draining, stop) = (components.draining, components.stop);
        let mut background = JoinSet::new();
        for job in components.jobs {
            let stop = stop.clone();
            background.spawn(async move {
                stop.run_until_cancelled(job).await;
            });
        }
        let admin_state = AdminState {
            journal: Arc::clone(&components.journal),
            quarantine: components.listener.quarantine(),
            thingspace: components.thingspace,
        };
        background.spawn(admin_socket::serve(
            components.socket,
            config.admin_socket(),
            admin_api::router(admin_state),
            stop.clone(),
        ));
        background.spawn(admin_port::serve(
            ports.admin,
            self.telemetry.clone(),
            components.serving.subscribe(),
            draining.clone(),
            stop.clone(),
        ));
        if let Some(sandbox) = &self.sandbox {
            sandbox.log();
        }
        let sandbox = self.sandbox.map(|sandbox| sandbox.start(stop.clone()));
        let mut grpc = JoinSet::new();
        grpc.spawn(components.server.serve(ports.grpc, draining.clone()));
        let mut callbacks = JoinSet::new();
        let grace = config.shutdown.grace;
        callbacks.spawn(components.listener.serve(ports.callbacks, stop.clone(), grace));
        RunningApp {
            grpc,
            callbacks,
            background,
            journal: components.journal,
            inflight_dispatches: components.inflight_dispatches,
            serving: components.serving,
            draining,
            stop,
            sandbox,
            telemetry: self.telemetry,
        }
    }
}

// === impl RunningApp ===

impl RunningApp {
    /// Ends gRPC calls first, then their requests to ThingSpace, then the callback listener:
    /// ThingSpace rarely repeats a callback.
    async fn drain(mut self, grace: Duration) -> ShutdownOutcome {
        let deadline = Instant::now() + grace;
        // The callback listener responds within 3.5 s, whatever time the calls took.
        let calls_deadline = deadline - (grace / 4).min(LISTENER_GRACE);
        tracing::info!(grace = ?grace, "draining");
        self.draining.cancel();
        self.serving.send_replace(false);
        self.inflight_dispatches.close();
        let mut drained = join_until(&mut self.grpc, calls_deadline).await;
        drained &= timeout_at(calls_deadline, self.inflight_dispatches.wait()).await.is_ok();
        self.stop.cancel();
        drained &= join_until(&mut self.callbacks, deadline).await;
        self.background.shutdown().await;
        // All acknowledged data is on disk already. A request to ThingSpace that is still in flight
        // keeps its reservation in the journal, and the close does not wait for it.
        drained &= timeout(CLOSE_GRACE, self.journal.close()).await.is_ok();
        if let Some(sandbox) = self.sandbox {
            sandbox.stop().await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.telemetry.shutdown(left.clamp(MIN_FLUSH, MAX_FLUSH)).await;
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
