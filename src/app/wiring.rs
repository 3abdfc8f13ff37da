//! Builds the components of a gateway.

use std::{
    iter::zip,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{
        access::Access,
        admin_port,
        admin_socket::AdminSocket,
        audit_log::open_audit_log,
        error::StartError,
        failed_logins::JournalFailedLoginStore,
        ports::Ports,
        readiness::{Problem, Readiness},
        shared_state::shared_state,
        waiting::Waiting,
    },
    audit::AuditLog,
    background::{
        self, Attributor, FileReloader, Forwarder, LeaderJob, Reconciler, RegistrationMonitor,
        RegistrationStatuses, StatusReporter, SteadyClock,
    },
    callbacks::CallbackListener,
    config::Config,
    console,
    dispatch::{Dispatcher, InFlight, Pauses},
    domain::{
        clock::{Clock, Timestamp},
        state::ChangeState,
    },
    grpc::{
        AdmissionControl, Gateway, HealthService, LISTS_OF_CALLER, Operator, ProtoEncoder, Server,
    },
    journal::{Journal, Origin},
    operations::ValidationRules,
    shares::CallerTurns,
    spool::{Spool, SpoolOptions},
    telemetry::{SpoolGauges, Telemetry},
    thingspace::ThingSpace,
    tls::{ServerTls, TlsOptions},
    watch::{StreamTimes, Watches},
};

/// The only clock that reads the system time.
pub(crate) struct SystemClock;

/// The components of a gateway. Nothing is served before the tasks are spawned.
pub(super) struct Components {
    /// The gRPC server and the console. They end after `draining`.
    pub(super) grpc: Vec<BoxFuture<'static, ()>>,
    /// The callback listener. It ends after `stop`.
    pub(super) callbacks: BoxFuture<'static, ()>,
    /// Everything else. It may be aborted.
    pub(super) background: Vec<BoxFuture<'static, ()>>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) spool: Option<Arc<Spool>>,
    pub(super) audit: AuditLog,
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
    spool: Option<Arc<Spool>>,
    audit: AuditLog,
    clock: Arc<dyn Clock>,
    steady_clock: Arc<SteadyClock>,
    pauses: Arc<Pauses>,
    thingspace: Arc<ThingSpace>,
    inflight_dispatches: TaskTracker,
    access: Access,
    serving: watch::Sender<bool>,
    /// Why the gateway cannot do all of its work.
    problem: watch::Sender<Option<Problem>>,
    /// True while this replica runs the jobs that one replica runs for all.
    is_leader: watch::Sender<bool>,
    draining: CancellationToken,
    stop: CancellationToken,
}

// === impl Components ===

impl Components {
    /// Opens the journal, recovers changes that the last stop interrupted, and builds everything else.
    pub(super) async fn build(
        config: &Config,
        origin: Origin,
        ports: Ports,
        telemetry: &Telemetry,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let grpc_tls = TlsOptions::grpc(config)
            .map(|options| ServerTls::new(options, clock.clone(), telemetry.instruments()))
            .transpose()?;
        let waiting = Waiting {
            config,
            origin: origin.clone(),
            clock: clock.clone(),
            telemetry,
            grpc_tls: grpc_tls.clone(),
            shutdown,
        };
        let mut files = FileReloader::default();
        let access = Access::build(config, &clock, telemetry, &mut files)?;
        let journal = Box::pin(waiting.open_journal(&ports)).await?;
        let shared = Shared::build(config, origin, journal, clock, telemetry, access).await?;
        let Shared { journal, spool, clock, steady_clock, thingspace, draining, stop, .. } =
            &shared;
        if let Some(tls) = &grpc_tls {
            tls.reload_with(&mut files);
        }
        let listener = CallbackListener::new(
            config,
            journal.clone(),
            spool.clone(),
            clock.clone(),
            steady_clock.clone(),
            telemetry.instruments(),
            &mut files,
        )?;
        let socket_path = config.admin_socket();
        // The journal's lock proves that no other process uses the default path.
        let socket = AdminSocket::bind(&socket_path)
            .map_err(|source| StartError::Socket { path: socket_path, source })?;
        let operator = Operator {
            journal: journal.clone(),
            quarantine: listener.quarantine(journal.clone()),
            pauses: shared.pauses.clone(),
            thingspace: thingspace.clone(),
            log_filter: telemetry.log_filter(),
            clock: clock.clone(),
            serving: shared.serving.subscribe(),
            is_leader: shared.is_leader.subscribe(),
            start_time: clock.now(),
            instruments: telemetry.instruments(),
            recent_callbacks: listener.recent(),
            registrations: RegistrationStatuses::new(config, journal.clone()),
            register_policy: config.callbacks.register,
        };
        let watches = shared.watches();
        let server = shared.server(watches.clone(), operator.clone(), grpc_tls.clone()).await?;
        let mut background: Vec<BoxFuture<'static, ()>> = Vec::new();
        let jobs = shared.jobs().into_iter().chain(shared.callback_jobs(files));
        for job in jobs.chain(shared.access.jobs(&watches, grpc_tls.as_deref())) {
            let stop = stop.clone();
            background.push(Box::pin(async move {
                stop.run_until_cancelled(job).await;
            }));
        }
        if let Some(spool) = spool {
            // Not ended by `stop`: callbacks may be spooled until the listener has ended.
            background.push(Box::pin(spool.clone().run()));
        }
        background
            .push(Box::pin(socket.serve(operator.into_router(shared.audit.clone()), stop.clone())));
        background.push(Box::pin(admin_port::serve(
            ports.admin,
            ports.limits.admin,
            telemetry.clone(),
            shared.serving.subscribe(),
            shared.problem.subscribe(),
            draining.clone(),
            stop.clone(),
        )));
        let grace = config.shutdown.grace;
        let mut grpc: Vec<BoxFuture<'static, ()>> = Vec::new();
        if let Some(listener) = ports.console {
            let console = console::server(config, &server)?;
            grpc.push(Box::pin(console.serve(listener, ports.limits.console, draining.clone())));
        }
        grpc.push(Box::pin(server.serve(ports.grpc, ports.limits.grpc, draining.clone())));
        Ok(Self {
            grpc,
            callbacks: Box::pin(listener.serve(
                ports.callbacks,
                ports.limits.callbacks,
                stop.clone(),
                grace,
            )),
            background,
            journal: shared.journal,
            spool: shared.spool,
            audit: shared.audit,
            inflight_dispatches: shared.inflight_dispatches,
            serving: shared.serving,
            draining: shared.draining,
            stop: shared.stop,
        })
    }
}

// === impl Shared ===

impl<'a> Shared<'a> {
    async fn build(
        config: &'a Config,
        origin: Origin,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        telemetry: &'a Telemetry,
        access: Access,
    ) -> Result<Self, StartError> {
        // The metrics outlive the journal and must not keep its directory locked.
        let observed = Arc::downgrade(&journal);
        telemetry.observe_changes(move || {
            let counts = observed.upgrade().map(|journal| journal.state_counts());
            zip(ChangeState::ALL, counts.unwrap_or_default().0)
                .map(|(state, count)| (state.as_str(), u64::try_from(count).unwrap_or(0)))
        });
        let audit = open_audit_log(config, &clock, telemetry)?;
        let spool = open_spool(config, origin, &journal, &clock, telemetry)?;
        let steady_clock = SteadyClock::load(&*journal, clock.clone()).await?;
        let pauses = Pauses::load(journal.clone(), clock.clone()).await?;
        let thingspace = ThingSpace::new(
            &config.thingspace,
            Arc::new(config.thingspace.clone()),
            Arc::new(JournalFailedLoginStore { journal: journal.clone(), clock: clock.clone() }),
            shared_state(&journal),
            telemetry.instruments(),
        )?;
        Ok(Self {
            config,
            telemetry,
            thingspace: Arc::new(thingspace),
            journal,
            spool,
            audit,
            clock,
            steady_clock,
            pauses,
            inflight_dispatches: TaskTracker::new(),
            access,
            serving: watch::Sender::new(true),
            problem: watch::Sender::new(None),
            is_leader: watch::Sender::new(false),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        })
    }

    fn watches(&self) -> Arc<Watches> {
        Watches::new(
            self.journal.clone(),
            Arc::new(ProtoEncoder),
            StreamTimes {
                max_age: self.config.grpc.max_stream_age,
                bookmark_interval: self.config.grpc.bookmark_interval,
            },
            self.draining.clone(),
            self.telemetry.instruments(),
        )
    }

    async fn server(
        &self,
        watches: Arc<Watches>,
        operator: Operator,
        tls: Option<Arc<ServerTls>>,
    ) -> Result<Server, StartError> {
        let Self { config, journal, clock, thingspace, draining, access, .. } = self;
        let max_devices = config.changes.max_devices_per_request;
        let dispatcher = Dispatcher::new(
            journal.clone(),
            thingspace.clone(),
            clock.clone(),
            self.pauses.clone(),
            InFlight::new(&config.limits, max_devices, &access.shares),
            self.inflight_dispatches.clone(),
        );
        background::settle_interrupted(&**journal, &**clock).await?;
        let gateway = Gateway {
            journal: journal.clone(),
            dispatcher,
            watches,
            thingspace: thingspace.clone(),
            clock: clock.clone(),
            validation_rules: ValidationRules::new(config),
            access: access.control.clone(),
            audit: self.audit.clone(),
            list_turns: CallerTurns::new(LISTS_OF_CALLER),
        };
        let health = HealthService::new(self.serving.subscribe(), draining.clone());
        let admission = AdmissionControl::new(
            &config.limits,
            config.grpc.max_message_bytes,
            access.usages.clone(),
            &access.shares,
        );
        let instruments = self.telemetry.instruments();
        Ok(Server::new(gateway, operator, health, config, tls, admission, instruments)?)
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            journal: self.journal.clone(),
            spool: self.spool.clone(),
            serving: self.serving.clone(),
            problem: self.problem.clone(),
            draining: self.draining.clone(),
            instruments: self.telemetry.instruments(),
        }
    }

    /// Returns a job that runs while this replica is the leader.
    fn on_leader(&self, job: impl LeaderJob + 'static) -> BoxFuture<'static, ()> {
        Box::pin(background::run_on_leader(self.is_leader.subscribe(), job))
    }

    fn jobs(&self) -> Vec<BoxFuture<'static, ()>> {
        let Self { journal, clock, thingspace, steady_clock, .. } = self;
        let changes = &self.config.changes;
        let deadlines = background::Deadlines {
            overdue_after: changes.overdue_after,
            close_after: changes.close_after,
        };
        let attributor = Attributor::new(
            journal.clone(),
            thingspace.clone(),
            clock.clone(),
            changes.attribution_quiet_period,
        );
        let reconciler = Reconciler::new(
            journal.clone(),
            thingspace.clone(),
            clock.clone(),
            changes.reconcile_after,
        );
        let watch_deadlines = {
            let (journal, clock) = (journal.clone(), clock.clone());
            let steady_clock = steady_clock.clone();
            move || -> BoxFuture<'static, ()> {
                Box::pin(background::watch_deadlines(
                    journal.clone(),
                    clock.clone(),
                    steady_clock.clone(),
                    deadlines,
                ))
            }
        };
        let trim_journal = {
            let (journal, clock) = (journal.clone(), steady_clock.clone());
            let retention = self.config.journal.retention;
            move || -> BoxFuture<'static, ()> {
                Box::pin(background::trim_journal(journal.clone(), clock.clone(), retention))
            }
        };
        let status_reporter = StatusReporter::new(
            journal.clone(),
            thingspace.clone(),
            clock.clone(),
            self.is_leader.subscribe(),
            self.telemetry.instruments(),
        );
        let thingspace = thingspace.clone();
        let audit = self.audit.clone();
        vec![
            Box::pin(status_reporter.run()),
            self.on_leader(watch_deadlines),
            self.on_leader(trim_journal),
            Box::pin(background::watch_interrupted(journal.clone(), clock.clone())),
            self.on_leader(attributor),
            self.on_leader(reconciler),
            Box::pin(background::compete(journal.coordination(), self.is_leader.clone())),
            Box::pin(async move { thingspace.run_token_renewal().await }),
            Box::pin(self.pauses.clone().follow()),
            Box::pin(async move { audit.run().await }),
            Box::pin(self.readiness().update()),
        ]
    }

    /// Returns the jobs of the callback listener: registration, forwarding, file reload.
    fn callback_jobs(&self, mut files: FileReloader) -> Vec<BoxFuture<'static, ()>> {
        let Self { config, telemetry, journal, clock, .. } = self;
        let mut jobs: Vec<BoxFuture<'static, ()>> = Vec::new();
        if let Some(monitor) = RegistrationMonitor::new(
            config,
            journal.clone(),
            self.thingspace.clone(),
            clock.clone(),
            telemetry.instruments(),
        ) {
            jobs.push(self.on_leader(monitor));
        }
        if let Some(forwarder) = Forwarder::new(
            &config.callbacks,
            journal.clone(),
            clock.clone(),
            self.steady_clock.clone(),
            telemetry.instruments(),
            &mut files,
        ) {
            let observed = Arc::downgrade(journal);
            telemetry.observe_forwards(move || {
                let stats = observed.upgrade().map(|journal| journal.forward_queue_stats());
                stats.map_or(0, |stats| stats.waiting)
            });
            jobs.push(self.on_leader(forwarder));
        }
        jobs.push(Box::pin(files.run()));
        jobs
    }
}

// === impl SystemClock ===

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[allow(
            clippy::disallowed_methods,
            reason = "all other code reads the time through this clock"
        )]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Opens the spool, if the settings name its directory.
fn open_spool(
    config: &Config,
    origin: Origin,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Result<Option<Arc<Spool>>, StartError> {
    let Some(dir) = config.journal.spool_dir.clone() else {
        return Ok(None);
    };
    let options = SpoolOptions {
        dir,
        max_bytes: config.journal.spool_max_bytes,
        origin,
        allow_network_filesystem: config.journal.allow_network_filesystem,
    };
    let spool = Spool::open(&options, journal.clone())?;
    // The metrics outlive the spool and must not keep its directory locked.
    let (observed, clock) = (Arc::downgrade(&spool), clock.clone());
    telemetry.observe_spool(move || {
        let stats = observed.upgrade().map(|spool| spool.stats()).unwrap_or_default();
        SpoolGauges {
            callbacks: stats.callbacks,
            unreadable: stats.unreadable,
            bytes: stats.bytes,
            oldest_age: stats.oldest.map(|oldest| clock.now().since(oldest)).unwrap_or_default(),
        }
    });
    Ok(Some(spool))
}
