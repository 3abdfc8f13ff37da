//! Builds the components of a gateway.

use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use tokio::{net::UnixListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{
        admin_socket, clock::SystemClock, error::StartError,
        failed_logins::JournalFailedLoginStore, thingspace_settings::thingspace_settings,
    },
    background::{
        self, Attributor, FileReloader, Forwarder, Reconciler, RegistrationMonitor, SteadyClock,
    },
    callbacks::CallbackListener,
    config::Config,
    dispatch::{Dispatcher, InFlightLimits},
    domain::{clock::Clock, state::ChangeState},
    grpc::{
        ConcurrencyLimits, Gateway, GrpcSettings, HealthService, ProtoEncoder, Server, ServerInfo,
    },
    journal::{
        Journal, Origin, StateCounts,
        sqlite::{SqliteJournal, SqliteOptions},
    },
    operations::ValidationRules,
    telemetry::Telemetry,
    thingspace::ThingSpace,
    watch::{WatchSettings, Watches},
};

/// Longest time without a message on a watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// Time for a call in addition to its request to ThingSpace.
const CALL_GRACE: Duration = Duration::from_secs(30);
/// Interval of the readiness check.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The components of a gateway, except its ports.
pub(super) struct Components {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) thingspace: Arc<ThingSpace>,
    pub(super) server: Server,
    pub(super) listener: CallbackListener,
    pub(super) socket: UnixListener,
    /// Background jobs. They end after `stop`.
    pub(super) jobs: Vec<Job>,
    /// Requests to ThingSpace in flight.
    pub(super) inflight_dispatches: TaskTracker,
    /// True while the gateway is ready.
    pub(super) serving: watch::Sender<bool>,
    /// gRPC calls end.
    pub(super) draining: CancellationToken,
    /// Everything else ends.
    pub(super) stop: CancellationToken,
}

/// Components that the others share.
struct Shared<'a> {
    config: &'a Config,
    telemetry: &'a Telemetry,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    steady_clock: Arc<SteadyClock>,
    thingspace: Arc<ThingSpace>,
    draining: CancellationToken,
    stop: CancellationToken,
}

// === impl Components ===

impl Components {
    /// Opens the journal, recovers changes that the last stop interrupted, and builds everything else.
    pub(super) async fn build(
        config: &Config,
        origin: Origin,
        telemetry: &Telemetry,
    ) -> Result<Self, StartError> {
        let shared = Shared::build(config, origin, telemetry).await?;
        let inflight_dispatches = TaskTracker::new();
        let serving = watch::Sender::new(true);
        let server = shared.server(inflight_dispatches.clone(), &serving).await?;
        let mut files = FileReloader::default();
        let listener = CallbackListener::new(
            config,
            Arc::clone(&shared.journal),
            Arc::clone(&shared.clock),
            shared.steady_clock.clone(),
            telemetry.instruments(),
            &mut files,
        )?;
        let socket = bind_admin_socket(&config.admin_socket())?;
        let mut jobs = shared.jobs(&serving);
        jobs.extend(shared.callback_jobs(files));
        Ok(Self {
            server,
            listener,
            socket,
            jobs,
            inflight_dispatches,
            serving,
            journal: shared.journal,
            thingspace: shared.thingspace,
            draining: shared.draining,
            stop: shared.stop,
        })
    }
}

/// Binds the admin socket. The journal's lock proves that no other process uses the default path.
fn bind_admin_socket(path: &Path) -> Result<UnixListener, StartError> {
    admin_socket::bind(path).map_err(|source| StartError::Socket { path: path.to_owned(), source })
}

// === impl Shared ===

impl<'a> Shared<'a> {
    async fn build(
        config: &'a Config,
        origin: Origin,
        telemetry: &'a Telemetry,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&SqliteOptions {
            dir: config.journal.dir.clone(),
            origin,
            allow_network_filesystem: config.journal.allow_network_filesystem,
            instruments: telemetry.instruments(),
        })?);
        // The metrics outlive the journal and must not keep its directory locked.
        let observed = Arc::downgrade(&journal);
        telemetry.observe_changes(move || {
            let counts = observed.upgrade().map(|journal| journal.state_counts());
            count_by_state(counts.unwrap_or_default())
        });
        let steady_clock = SteadyClock::load(&*journal, Arc::clone(&clock)).await?;
        let failed_logins = Arc::new(JournalFailedLoginStore {
            journal: Arc::clone(&journal),
            clock: Arc::clone(&clock),
        });
        let settings = thingspace_settings(config, failed_logins);
        Ok(Self {
            config,
            telemetry,
            thingspace: Arc::new(ThingSpace::new(settings, telemetry.instruments())?),
            journal,
            clock,
            steady_clock,
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        })
    }

    async fn server(
        &self,
        inflight_dispatches: TaskTracker,
        serving: &watch::Sender<bool>,
    ) -> Result<Server, StartError> {
        let config = self.config;
        let dispatcher = Dispatcher::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            InFlightLimits {
                changes: config.limits.inflight_changes,
                devices: config.limits.devices,
            },
            inflight_dispatches,
        );
        dispatcher.recover().await?;
        let watches = Watches::new(
            Arc::clone(&self.journal),
            Arc::new(ProtoEncoder),
            WatchSettings {
                max_stream_age: config.grpc.max_stream_age,
                bookmark_interval: BOOKMARK_INTERVAL,
            },
            self.draining.clone(),
            self.telemetry.instruments(),
        );
        let gateway = Gateway::new(
            Arc::clone(&self.journal),
            dispatcher,
            watches,
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            validation_rules(config),
            ServerInfo {
                journal_engine: "sqlite",
                journal_origin: self.journal.origin().as_str().to_owned(),
            },
        );
        let health = HealthService::new(serving.subscribe(), self.draining.clone());
        Ok(Server::new(
            gateway,
            health,
            GrpcSettings {
                max_connection_age: config.grpc.max_connection_age,
                // A call may still wait for ThingSpace when its connection reaches its maximum age.
                max_connection_age_grace: config
                    .grpc
                    .max_stream_age
                    .max(config.thingspace.request_timeout + CALL_GRACE),
                max_message_bytes: config.grpc.max_message_bytes,
                limits: ConcurrencyLimits {
                    inflight_changes: config.limits.inflight_changes,
                    message_bytes: config.limits.message_bytes,
                    reads: config.limits.reads,
                    watches: config.limits.watches,
                },
            },
            self.telemetry.instruments(),
        )?)
    }

    fn jobs(&self, serving: &watch::Sender<bool>) -> Vec<Job> {
        let (config, stop) = (self.config, &self.stop);
        let attributor = Attributor::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            config.changes.attribution_quiet_period,
        );
        let reconciler = Reconciler::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            config.changes.reconcile_after,
        );
        let (thingspace, stopped) = (Arc::clone(&self.thingspace), stop.clone());
        vec![
            Box::pin(background::watch_deadlines(
                Arc::clone(&self.journal),
                Arc::clone(&self.clock),
                self.steady_clock.clone(),
                background::Deadlines {
                    overdue_after: config.changes.overdue_after,
                    close_after: config.changes.close_after,
                },
                stop.clone(),
            )),
            Box::pin(background::trim_journal(
                Arc::clone(&self.journal),
                Arc::clone(&self.steady_clock),
                config.journal.retention,
                stop.clone(),
            )),
            Box::pin(attributor.run(stop.clone())),
            Box::pin(reconciler.run(stop.clone())),
            Box::pin(async move {
                stopped.run_until_cancelled(thingspace.run_token_renewal()).await;
            }),
            Box::pin(update_readiness(
                Arc::clone(&self.journal),
                serving.clone(),
                self.draining.clone(),
            )),
        ]
    }

    /// Returns the jobs of the callback listener: registration, forwarding, file reload.
    fn callback_jobs(&self, mut files: FileReloader) -> Vec<Job> {
        let mut jobs: Vec<Job> = Vec::new();
        let monitor = RegistrationMonitor::new(
            self.config,
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            self.telemetry.instruments(),
        );
        if let Some(monitor) = monitor {
            jobs.push(Box::pin(monitor.run(self.stop.clone())));
        }
        let forwarder = Forwarder::new(
            &self.config.callbacks,
            Arc::clone(&self.journal),
            Arc::clone(&self.clock),
            self.steady_clock.clone(),
            self.telemetry.instruments(),
            &mut files,
        );
        if let Some(forwarder) = forwarder {
            let journal = Arc::downgrade(&self.journal);
            self.telemetry.observe_forwards(move || {
                let journal = journal.upgrade();
                journal.map_or(0, |journal| journal.forward_queue_stats().waiting)
            });
            jobs.push(Box::pin(forwarder.run(self.stop.clone())));
        }
        jobs.push(Box::pin(files.run(self.stop.clone())));
        jobs
    }
}

fn count_by_state(counts: StateCounts) -> [(&'static str, u64); ChangeState::ALL.len()] {
    let mut by_state = ChangeState::ALL.map(|state| (state.as_str(), 0));
    for (entry, count) in by_state.iter_mut().zip(counts.0) {
        entry.1 = u64::try_from(count).unwrap_or(0);
    }
    by_state
}

fn validation_rules(config: &Config) -> ValidationRules {
    ValidationRules {
        max_devices: usize::try_from(config.changes.max_devices_per_request).unwrap_or(usize::MAX),
        require_key: config.changes.require_key,
        // Only Verizon's own host changes real devices.
        reject_reserved: config.thingspace.is_production(),
    }
}

/// Updates readiness until a drain. It depends on the journal only, not on ThingSpace, which no other
/// replica could reach better.
async fn update_readiness(
    journal: Arc<dyn Journal>,
    serving: watch::Sender<bool>,
    draining: CancellationToken,
) {
    let mut interval = tokio::time::interval(READINESS_INTERVAL);
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _now = interval.tick() => {}
        }
        serving.send_if_modified(|serving| {
            // Checked under the lock, so that a drain that has begun stays not ready.
            let ready = journal.is_writable() && !draining.is_cancelled();
            std::mem::replace(serving, ready) != ready
        });
    }
}
