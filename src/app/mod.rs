//! The wiring: settings in, a running gateway out, and an orderly end.
//!
//! All ports are bound before anything else, so that a start that cannot
//! succeed has done nothing. The end is bounded: what has not finished within
//! `shutdown.grace` is on disk and goes on after the next start.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{self, Encoder, Gateway, Health, Server},
    config::{Config, Mode},
    domain::{change::ChangeState, clock::Clock, draft::Limits},
    journal::{
        Census, Journal, JournalError,
        embedded::{Embedded, OpenError, Options},
    },
    listener::Listener,
    submit::{Binder, Submit},
    telemetry::{Instruments, Telemetry},
    thingspace::{self, ThingSpace},
    upkeep,
    watch::{self as watches, Watches},
};

mod admin;
mod clock;
mod guard;
mod sandboxed;
mod secrets;
mod socket;
mod strikes;

pub use clock::SystemClock;
pub use sandboxed::sandbox_settings;

/// The longest silence of a watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// How much of a drain's grace the callback listener needs.
const LISTENER_GRACE: Duration = Duration::from_secs(4);
/// How long a call may take beyond its one request to ThingSpace.
const CALL_GRACE: Duration = Duration::from_secs(30);
/// How long the journal may take to close, beyond the drain's grace.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// How long telemetry may be sent at the end: at least and at most.
const FLUSH_GRACE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

/// A gateway that has all it needs, and serves nobody yet.
pub struct App {
    addresses: Addresses,
    ports: Ports,
    parts: Parts,
    config: Config,
    sandbox: Option<sandboxed::Beside>,
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
    Open(#[from] OpenError),
    /// What the last stop left in the journal cannot be settled.
    #[error("the journal cannot be used: {0}")]
    Recover(#[from] JournalError),
    /// The client of ThingSpace cannot be built.
    #[error(transparent)]
    ThingSpace(#[from] thingspace::BuildError),
    /// The gRPC services cannot be built.
    #[error(transparent)]
    Api(#[from] api::BuildError),
    /// The callback listener cannot be built.
    #[error(transparent)]
    Listener(#[from] crate::listener::TlsError),
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

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished.
    Drained,
    /// Something was cut off when the grace had passed.
    CutOff,
}

struct Ports {
    grpc: TcpListener,
    callbacks: TcpListener,
    admin: TcpListener,
}

struct Parts {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    server: Server,
    listener: Listener,
    secrets: Vec<Arc<secrets::Fresh>>,
    submitting: TaskTracker,
    draining: CancellationToken,
    serving: watch::Sender<bool>,
    thingspace: Arc<ThingSpace>,
    binder: Binder,
    socket: UnixListener,
}

// === impl App ===

impl App {
    /// Binds the ports, opens the journal and settles what the last stop left.
    pub async fn build(
        mut config: Config,
        mode: Mode,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let ports = Ports::bind(&config).await?;
        let addresses = ports.addresses()?;
        let sandbox = match mode {
            Mode::ServeSandbox => {
                let beside = sandboxed::Beside::bind(&mut config, addresses.callbacks);
                Some(beside.await.map_err(StartError::Sandbox)?)
            }
            Mode::Serve | Mode::Sandbox => None,
        };
        let parts = Parts::build(&config, telemetry.instruments()).await?;
        // The metrics outlive the journal, and must not keep its directory locked.
        let journal = Arc::downgrade(&parts.journal);
        telemetry.observe_changes(move || {
            let census = journal.upgrade().map(|journal| journal.census());
            count_by_state(census.unwrap_or_default())
        });
        Ok(Self {
            addresses,
            ports,
            parts,
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
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        let Self {
            addresses,
            ports,
            parts,
            config,
            sandbox,
            telemetry,
        } = self;
        addresses.log();
        let grace = config.shutdown.grace;
        let stop = CancellationToken::new();
        let mut upkeep = JoinSet::new();
        parts.start_upkeep(&config, &stop, &mut upkeep);
        upkeep.spawn(parts.binder.run(stop.clone()));
        let guard = guard::guard(
            &config,
            &parts.journal,
            &parts.thingspace,
            &parts.clock,
            telemetry.instruments(),
        );
        if let Some(guard) = guard {
            upkeep.spawn(guard.run(stop.clone()));
        }
        let operator = socket::Operator {
            journal: Arc::clone(&parts.journal),
            quarantine: parts.listener.quarantine(),
            thingspace: Arc::clone(&parts.thingspace),
        };
        upkeep.spawn(socket::serve(
            parts.socket,
            config.admin_socket(),
            operator,
            stop.clone(),
        ));
        if let Some(sandbox) = &sandbox {
            sandbox.log();
        }
        let sandbox = sandbox.map(|beside| beside.start(stop.clone()));

        let mut grpc = JoinSet::new();
        grpc.spawn(parts.server.serve(ports.grpc, parts.draining.clone()));
        let mut callbacks = JoinSet::new();
        callbacks.spawn(parts.listener.serve(ports.callbacks, stop.clone(), grace));
        let readiness = parts.serving.subscribe();
        upkeep.spawn(admin::serve(
            ports.admin,
            telemetry.clone(),
            readiness,
            parts.draining.clone(),
            stop.clone(),
        ));

        shutdown.cancelled().await;
        let deadline = Instant::now() + grace;
        // The listener answers within 3.5 s: a share of the grace stays for it,
        // whatever the calls took.
        let calls_until = deadline - (grace / 4).min(LISTENER_GRACE);
        tracing::info!(grace = ?grace, "draining");
        parts.draining.cancel();
        parts.serving.send_replace(false);
        parts.submitting.close();
        // Calls first, and the POSTs that outlive their calls; callbacks are
        // taken until the end, since ThingSpace hardly repeats them.
        let mut drained = ended(&mut grpc, calls_until).await;
        drained &= timeout_at(calls_until, parts.submitting.wait())
            .await
            .is_ok();
        stop.cancel();
        drained &= ended(&mut callbacks, deadline).await;
        upkeep.shutdown().await;
        // Everything acknowledged is on disk already; this only tidies up. A POST
        // that is still under way keeps its room in the journal, and is not
        // waited for again.
        drained &= timeout(CLOSE_GRACE, parts.journal.close()).await.is_ok();
        if let Some(sandbox) = sandbox {
            sandbox.end().await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        telemetry
            .shutdown(left.clamp(FLUSH_GRACE.0, FLUSH_GRACE.1))
            .await;
        tracing::info!(drained, "stopped");
        if drained {
            Ended::Drained
        } else {
            Ended::CutOff
        }
    }
}

/// Waits for tasks, then ends those that are left.
async fn ended(tasks: &mut JoinSet<()>, deadline: Instant) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let in_time = timeout_at(deadline, all).await.is_ok();
    tasks.shutdown().await;
    in_time
}

// === impl Ports ===

impl Ports {
    async fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            grpc: bind("grpc.listen", config.grpc.listen).await?,
            callbacks: bind("callbacks.listen", config.callbacks.listen).await?,
            admin: bind("admin.listen", config.admin.listen).await?,
        })
    }

    fn addresses(&self) -> Result<Addresses, StartError> {
        let of = |key, listener: &TcpListener| {
            listener.local_addr().map_err(|source| StartError::Bind {
                key,
                address: SocketAddr::from(([0, 0, 0, 0], 0)),
                source,
            })
        };
        Ok(Addresses {
            grpc: of("grpc.listen", &self.grpc)?,
            callbacks: of("callbacks.listen", &self.callbacks)?,
            admin: of("admin.listen", &self.admin)?,
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

// === impl Parts ===

impl Parts {
    async fn build(config: &Config, instruments: Instruments) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal: Arc<dyn Journal> = Arc::new(Embedded::open(&Options {
            dir: config.journal.dir.clone(),
            allow_network_filesystem: config.journal.allow_network_filesystem,
            instruments: instruments.clone(),
        })?);
        let thingspace = Arc::new(ThingSpace::new(
            secrets::thingspace_settings(
                config,
                Arc::new(strikes::InJournal(Arc::clone(&journal))),
            ),
            instruments.clone(),
        )?);
        let draining = CancellationToken::new();
        let submitting = TaskTracker::new();
        let submit = Submit::new(
            Arc::clone(&journal),
            Arc::clone(&thingspace),
            Arc::clone(&clock),
            submitting.clone(),
        );
        submit.recover().await?;
        let binder = Binder::new(
            Arc::clone(&journal),
            Arc::clone(&thingspace),
            Arc::clone(&clock),
            config.changes.bind_after,
        );
        let watches = Watches::new(
            Arc::clone(&journal),
            Arc::new(Encoder),
            watches::Settings {
                max_stream_age: config.grpc.max_stream_age,
                bookmark_interval: BOOKMARK_INTERVAL,
            },
            draining.clone(),
            instruments.clone(),
        );
        let gateway = Gateway::new(
            Arc::clone(&journal),
            submit,
            watches,
            Arc::clone(&clock),
            limits(config),
        );
        let serving = watch::Sender::new(true);
        let health = Health::new(serving.subscribe(), draining.clone());
        let server = Server::new(
            gateway,
            health,
            api::Settings {
                max_connection_age: config.grpc.max_connection_age,
                // A call may still wait for ThingSpace when its connection is asked to go.
                max_connection_age_grace: config
                    .grpc
                    .max_stream_age
                    .max(config.thingspace.request_timeout + CALL_GRACE),
                max_message_bytes: config.grpc.max_message_bytes,
            },
            instruments.clone(),
        )?;
        let (settings, secrets) = secrets::listener_settings(config);
        let listener = Listener::new(
            settings,
            Arc::clone(&journal),
            Arc::clone(&clock),
            instruments,
        )?;
        // After the journal, whose lock says that no other process is here.
        let path = config.admin_socket();
        let socket = socket::bind(&path).map_err(|source| StartError::Socket { path, source })?;
        Ok(Self {
            journal,
            clock,
            server,
            listener,
            secrets,
            submitting,
            draining,
            serving,
            thingspace,
            binder,
            socket,
        })
    }

    fn start_upkeep(&self, config: &Config, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
        tasks.spawn(upkeep::watch_deadlines(
            Arc::clone(&self.journal),
            Arc::clone(&self.clock),
            upkeep::Deadlines {
                overdue_after: config.changes.overdue_after,
                give_up_after: config.changes.give_up_after,
            },
            stop.clone(),
        ));
        let reconciler = upkeep::Reconciler::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            config.changes.reconcile_after,
        );
        tasks.spawn(reconciler.run(stop.clone()));
        let (thingspace, stopped) = (Arc::clone(&self.thingspace), stop.clone());
        tasks.spawn(async move {
            stopped.run_until_cancelled(thingspace.keep_fresh()).await;
        });
        tasks.spawn(upkeep::trim_journal(
            Arc::clone(&self.journal),
            Arc::clone(&self.clock),
            config.journal.retention,
            stop.clone(),
        ));
        tasks.spawn(secrets::refresh(self.secrets.clone(), stop.clone()));
        tasks.spawn(follow_readiness(
            Arc::clone(&self.journal),
            self.serving.clone(),
            self.draining.clone(),
        ));
    }
}

fn count_by_state(census: Census) -> [(&'static str, u64); ChangeState::ALL.len()] {
    let mut counts = ChangeState::ALL.map(|state| (state.name(), 0));
    for (shown, count) in counts.iter_mut().zip(census.0) {
        shown.1 = u64::try_from(count).unwrap_or(0);
    }
    counts
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_devices: usize::try_from(config.changes.max_devices_per_request).unwrap_or(usize::MAX),
        require_key: config.changes.require_key,
        // Real devices are changed only through Verizon's own address.
        refuse_reserved: config.thingspace.is_real(),
    }
}

/// Readiness depends on the journal and on the drain, never on ThingSpace: no
/// other replica would reach it better.
async fn follow_readiness(
    journal: Arc<dyn Journal>,
    serving: watch::Sender<bool>,
    draining: CancellationToken,
) {
    let mut look = tokio::time::interval(READINESS_INTERVAL);
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _now = look.tick() => {}
        }
        serving.send_if_modified(|serving| {
            // Looked at in here: a drain that has begun is not to be undone.
            let ready = journal.is_writable() && !draining.is_cancelled();
            std::mem::replace(serving, ready) != ready
        });
    }
}
