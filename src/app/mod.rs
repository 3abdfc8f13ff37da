//! The wiring: settings in, a running gateway out, and an orderly end.
//!
//! All ports are bound before anything else, so that a start that cannot
//! succeed has done nothing. The end is bounded: what has not finished within
//! `shutdown.grace` is on disk and goes on after the next start.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, Mode},
    grpc,
    journal::{JournalError, Origin, sqlite::JournalOpenError},
    telemetry::Telemetry,
    thingspace,
};

mod admin;
mod admin_socket;
mod clock;
mod embedded_sandbox;
mod failed_logins;
mod forwarding;
mod registration;
mod secrets;
mod wiring;

pub use clock::SystemClock;
pub use embedded_sandbox::sandbox_settings;
use wiring::{Components, count_by_state};

/// How much of a drain's grace the callback listener needs.
const LISTENER_GRACE: Duration = Duration::from_secs(4);
/// How long the journal may take to close, beyond the drain's grace.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// How long telemetry may be sent at the end: at least and at most.
const FLUSH_GRACE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// A gateway that has all it needs, and serves nobody yet.
pub struct App {
    addresses: Addresses,
    ports: BoundPorts,
    components: Components,
    config: Config,
    sandbox: Option<embedded_sandbox::EmbeddedSandbox>,
    telemetry: Telemetry,
}

/// Where a gateway listens: the ports that it was given, or that were free.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// ThingSpace's callbacks.
    pub callbacks: SocketAddr,
    /// Operators and their machinery.
    pub admin: SocketAddr,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be bound.
    #[error("{key} {address}: {source}")]
    Bind {
        /// The setting.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] JournalOpenError),
    /// What the last stop left in the journal cannot be settled.
    #[error("the journal cannot be used: {0}")]
    Recover(#[from] JournalError),
    /// The client of ThingSpace cannot be built.
    #[error(transparent)]
    ThingSpace(#[from] thingspace::ClientBuildError),
    /// The gRPC services cannot be built.
    #[error(transparent)]
    Api(#[from] grpc::ServerBuildError),
    /// The callback listener cannot be built.
    #[error(transparent)]
    Listener(#[from] crate::callbacks::TlsError),
    /// The socket for operators cannot be made.
    #[error("admin.socket {path}: {source}", path = .path.display())]
    Socket {
        /// Where it should be.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The sandbox or its temporary directory cannot be had.
    #[error("the sandbox cannot start: {0}")]
    Sandbox(std::io::Error),
}

// === impl StartError ===

impl StartError {
    /// The exit code of the start: `EX_CONFIG` where settings and journal do not go together, or the
    /// journal is not what the gateway left, so that no retry helps.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Open(JournalOpenError::Damaged { .. } | JournalOpenError::OtherOrigin { .. }) => {
                config::EXIT_CODE
            }
            _ => 1,
        }
    }
}

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Everything was finished.
    Drained,
    /// Something was cut off when the grace had passed.
    TimedOut,
}

struct BoundPorts {
    grpc: TcpListener,
    callbacks: TcpListener,
    admin: TcpListener,
}

// === impl App ===

impl App {
    /// Binds the ports, opens the journal and settles what the last stop left.
    pub async fn build(
        mut config: Config,
        mode: Mode,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let ports = BoundPorts::bind(&config).await?;
        let addresses = ports.addresses()?;
        let sandbox = match mode {
            Mode::ServeSandbox => {
                let sandbox =
                    embedded_sandbox::EmbeddedSandbox::bind(&mut config, addresses.callbacks);
                Some(sandbox.await.map_err(StartError::Sandbox)?)
            }
            Mode::Serve | Mode::Sandbox => None,
        };
        let origin = match mode {
            Mode::ServeSandbox => Origin::sandbox(),
            Mode::Serve | Mode::Sandbox => Origin::from_url(&config.thingspace.base_url),
        };
        let components = Components::build(&config, origin, telemetry.instruments()).await?;
        // The metrics outlive the journal, and must not keep its directory locked.
        let journal = Arc::downgrade(&components.journal);
        telemetry.observe_changes(move || {
            let census = journal.upgrade().map(|journal| journal.state_counts());
            count_by_state(census.unwrap_or_default())
        });
        Ok(Self {
            addresses,
            ports,
            components,
            config,
            sandbox,
            telemetry,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown`, then drains within `shutdown.grace`.
    pub async fn run(self, shutdown: CancellationToken) -> ShutdownOutcome {
        let Self {
            addresses,
            ports,
            components,
            config,
            sandbox,
            telemetry,
        } = self;
        addresses.log();
        let grace = config.shutdown.grace;
        let stop = CancellationToken::new();
        let mut background = JoinSet::new();
        components.spawn_background(&config, &stop, &mut background);
        background.spawn(components.attributor.run(stop.clone()));
        let monitor = registration::build_registration_monitor(
            &config,
            &components.journal,
            &components.thingspace,
            &components.clock,
            telemetry.instruments(),
        );
        if let Some(monitor) = monitor {
            background.spawn(monitor.run(stop.clone()));
        }
        let forwarder = forwarding::build_forwarder(
            &config,
            &components.journal,
            &components.clock,
            components.steady_clock.clone(),
            telemetry.instruments(),
        );
        if let Some((forwarder, secrets)) = forwarder {
            background.spawn(secrets::refresh(secrets, stop.clone()));
            background.spawn(forwarder.run(stop.clone()));
            let journal = Arc::downgrade(&components.journal);
            telemetry.observe_forwards(move || {
                let journal = journal.upgrade();
                journal.map_or(0, |journal| journal.forward_queue_stats().waiting)
            });
        }
        let operator = admin_socket::AdminState {
            journal: Arc::clone(&components.journal),
            quarantine: components.listener.quarantine(),
            thingspace: Arc::clone(&components.thingspace),
        };
        background.spawn(admin_socket::serve(
            components.socket,
            config.admin_socket(),
            operator,
            stop.clone(),
        ));
        if let Some(sandbox) = &sandbox {
            sandbox.log();
        }
        let sandbox = sandbox.map(|sandbox| sandbox.start(stop.clone()));

        let mut grpc = JoinSet::new();
        grpc.spawn(
            components
                .server
                .serve(ports.grpc, components.draining.clone()),
        );
        let mut callbacks = JoinSet::new();
        callbacks.spawn(
            components
                .listener
                .serve(ports.callbacks, stop.clone(), grace),
        );
        let readiness = components.serving.subscribe();
        background.spawn(admin::serve(
            ports.admin,
            telemetry.clone(),
            readiness,
            components.draining.clone(),
            stop.clone(),
        ));

        shutdown.cancelled().await;
        let deadline = Instant::now() + grace;
        // The listener answers within 3.5 s: a share of the grace stays for it,
        // whatever the calls took.
        let calls_until = deadline - (grace / 4).min(LISTENER_GRACE);
        tracing::info!(grace = ?grace, "draining");
        components.draining.cancel();
        components.serving.send_replace(false);
        components.inflight_dispatches.close();
        // Calls first, and the POSTs that outlive their calls; callbacks are
        // taken until the end, since ThingSpace hardly repeats them.
        let mut drained = join_until(&mut grpc, calls_until).await;
        drained &= timeout_at(calls_until, components.inflight_dispatches.wait())
            .await
            .is_ok();
        stop.cancel();
        drained &= join_until(&mut callbacks, deadline).await;
        background.shutdown().await;
        // Everything acknowledged is on disk already; this only tidies up. A POST
        // that is still under way keeps its room in the journal, and is not
        // waited for again.
        drained &= timeout(CLOSE_GRACE, components.journal.close())
            .await
            .is_ok();
        if let Some(sandbox) = sandbox {
            sandbox.stop().await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        telemetry
            .shutdown(left.clamp(FLUSH_GRACE.0, FLUSH_GRACE.1))
            .await;
        tracing::info!(drained, "stopped");
        if drained {
            ShutdownOutcome::Drained
        } else {
            ShutdownOutcome::TimedOut
        }
    }
}

/// Waits for tasks, then ends those that are left.
async fn join_until(tasks: &mut JoinSet<()>, deadline: Instant) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let in_time = timeout_at(deadline, all).await.is_ok();
    tasks.shutdown().await;
    in_time
}

// === impl Ports ===

impl BoundPorts {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            grpc: bind("grpc.listen", config.grpc.listen).await?,
            callbacks: bind("callbacks.listen", config.callbacks.listen).await?,
            admin: bind("admin.listen", config.admin.listen).await?,
        })
    }

    fn addresses(&self) -> Result<Addresses, StartError> {
        let local_addr = |key, listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Bind {
                key,
                address: SocketAddr::from(([0, 0, 0, 0], 0)),
                source,
            })
        };
        Ok(Addresses {
            grpc: local_addr("grpc.listen", &self.grpc)?,
            callbacks: local_addr("callbacks.listen", &self.callbacks)?,
            admin: local_addr("admin.listen", &self.admin)?,
        })
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Bind {
            key,
            address,
            source,
        })
}

// === impl Addresses ===

impl Addresses {
    /// The first lines of the log, for those who asked for any free port.
    fn log(&self) {
        tracing::info!(address = %self.grpc, "gRPC listens on {}", self.grpc);
        tracing::info!(address = %self.callbacks, "callbacks listen on {}", self.callbacks);
        tracing::info!(address = %self.admin, "admin listens on {}", self.admin);
    }
}
