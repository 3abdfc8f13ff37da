//! What a gateway is made of, and what of it runs by itself.

use std::{sync::Arc, time::Duration};

use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{StartError, SystemClock, admin_socket, failed_logins, secrets};
use crate::{
    background::{self, Attributor, SteadyClock},
    callbacks::CallbackListener,
    config::Config,
    dispatch::{self, Dispatcher},
    domain::{clock::Clock, state::ChangeState},
    grpc::{self, Gateway, HealthService, ProtoEncoder, Server, ServerInfo},
    journal::{
        Journal, Origin, StateCounts,
        sqlite::{SqliteJournal, SqliteOptions},
    },
    operations::ValidationRules,
    telemetry::Instruments,
    thingspace::ThingSpace,
    watch::{self as watches, Watches},
};

/// The longest silence of a watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// How long a call may take beyond its one request to ThingSpace.
const CALL_GRACE: Duration = Duration::from_secs(30);
/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

/// Everything but the ports.
pub(super) struct Components {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) steady_clock: Arc<SteadyClock>,
    pub(super) server: Server,
    pub(super) listener: CallbackListener,
    pub(super) secrets: Vec<Arc<secrets::ReloadingSecret>>,
    pub(super) inflight_dispatches: TaskTracker,
    pub(super) draining: CancellationToken,
    pub(super) serving: watch::Sender<bool>,
    pub(super) thingspace: Arc<ThingSpace>,
    pub(super) attributor: Attributor,
    pub(super) socket: UnixListener,
}

// === impl Parts ===

impl Components {
    pub(super) async fn build(
        config: &Config,
        origin: Origin,
        instruments: Instruments,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&SqliteOptions {
            dir: config.journal.dir.clone(),
            origin,
            allow_network_filesystem: config.journal.allow_network_filesystem,
            instruments: instruments.clone(),
        })?);
        let steady_clock = SteadyClock::load(&*journal, Arc::clone(&clock)).await?;
        let thingspace = Arc::new(ThingSpace::new(
            secrets::thingspace_settings(
                config,
                Arc::new(failed_logins::JournalFailedLoginStore {
                    journal: Arc::clone(&journal),
                    clock: Arc::clone(&clock),
                }),
            ),
            instruments.clone(),
        )?);
        let draining = CancellationToken::new();
        let submitting = TaskTracker::new();
        let submit = Dispatcher::new(
            Arc::clone(&journal),
            Arc::clone(&thingspace),
            Arc::clone(&clock),
            dispatch::InFlightLimits {
                changes: config.limits.inflight_changes,
                devices: config.limits.devices,
            },
            submitting.clone(),
        );
        submit.recover().await?;
        let attributor = Attributor::new(
            Arc::clone(&journal),
            Arc::clone(&thingspace),
            Arc::clone(&clock),
            config.changes.attribution_quiet_period,
        );
        let watches = Watches::new(
            Arc::clone(&journal),
            Arc::new(ProtoEncoder),
            watches::WatchSettings {
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
            Arc::clone(&thingspace),
            Arc::clone(&clock),
            validation_rules(config),
            ServerInfo {
                journal_engine: "sqlite",
                journal_origin: journal.origin().to_string(),
            },
        );
        let serving = watch::Sender::new(true);
        let health = HealthService::new(serving.subscribe(), draining.clone());
        let server = Server::new(
            gateway,
            health,
            grpc::GrpcSettings {
                max_connection_age: config.grpc.max_connection_age,
                // A call may still wait for ThingSpace when its connection is asked to go.
                max_connection_age_grace: config
                    .grpc
                    .max_stream_age
                    .max(config.thingspace.request_timeout + CALL_GRACE),
                max_message_bytes: config.grpc.max_message_bytes,
                limits: grpc::ConcurrencyLimits {
                    inflight_changes: config.limits.inflight_changes,
                    message_bytes: config.limits.message_bytes,
                    reads: config.limits.reads,
                    watches: config.limits.watches,
                },
            },
            instruments.clone(),
        )?;
        let (settings, secrets) = secrets::callback_settings(config);
        let listener = CallbackListener::new(
            settings,
            Arc::clone(&journal),
            Arc::clone(&clock),
            steady_clock.clone(),
            instruments,
        )?;
        // After the journal, whose lock says that no other process is here.
        let path = config.admin_socket();
        let socket =
            admin_socket::bind(&path).map_err(|source| StartError::Socket { path, source })?;
        Ok(Self {
            journal,
            clock,
            steady_clock,
            server,
            listener,
            secrets,
            inflight_dispatches: submitting,
            draining,
            serving,
            thingspace,
            attributor,
            socket,
        })
    }

    pub(super) fn spawn_background(
        &self,
        config: &Config,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        tasks.spawn(background::watch_deadlines(
            Arc::clone(&self.journal),
            Arc::clone(&self.clock),
            self.steady_clock.clone(),
            background::Deadlines {
                overdue_after: config.changes.overdue_after,
                close_after: config.changes.close_after,
            },
            stop.clone(),
        ));
        let reconciler = background::Reconciler::new(
            Arc::clone(&self.journal),
            Arc::clone(&self.thingspace),
            Arc::clone(&self.clock),
            config.changes.reconcile_after,
        );
        tasks.spawn(reconciler.run(stop.clone()));
        let (thingspace, stopped) = (Arc::clone(&self.thingspace), stop.clone());
        tasks.spawn(async move {
            stopped
                .run_until_cancelled(thingspace.run_token_renewal())
                .await;
        });
        tasks.spawn(background::trim_journal(
            Arc::clone(&self.journal),
            Arc::clone(&self.steady_clock),
            config.journal.retention,
            stop.clone(),
        ));
        tasks.spawn(secrets::refresh(self.secrets.clone(), stop.clone()));
        tasks.spawn(update_readiness(
            Arc::clone(&self.journal),
            self.serving.clone(),
            self.draining.clone(),
        ));
    }
}

pub(super) fn count_by_state(census: StateCounts) -> [(&'static str, u64); ChangeState::ALL.len()] {
    let mut counts = ChangeState::ALL.map(|state| (state.as_str(), 0));
    for (shown, count) in counts.iter_mut().zip(census.0) {
        shown.1 = u64::try_from(count).unwrap_or(0);
    }
    counts
}

fn validation_rules(config: &Config) -> ValidationRules {
    ValidationRules {
        max_devices: usize::try_from(config.changes.max_devices_per_request).unwrap_or(usize::MAX),
        require_key: config.changes.require_key,
        // Real devices are changed only through Verizon's own address.
        reject_reserved: config.thingspace.is_production(),
    }
}

/// Readiness depends on the journal and on the drain, never on ThingSpace: no
/// other replica would reach it better.
async fn update_readiness(
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
