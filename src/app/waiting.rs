//! Opens the journal. While it is unavailable, keeps callbacks in the spool.
//!
//! A database can be unavailable for minutes when a gateway starts, for example while an import runs. With a spool, the gateway
//! then receives callbacks already, and rejects calls. Without a spool, or if a retry cannot help, the start fails.

use std::{os::fd::AsFd as _, pin::pin, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{admin_port, error::StartError, journal::open_journal, ports::Ports},
    background::FileReloader,
    callbacks::CallbackListener,
    config::{Config, JournalEngine},
    console,
    domain::{backoff::Backoff, clock::Clock},
    grpc::unavailable_server,
    journal::{Journal, Origin, UnopenedJournal},
    spool::{Spool, SpoolOptions},
    telemetry::{LogThrottle, Telemetry},
    tls::ServerTls,
};

/// Time after which callbacks are received although the journal is not open.
const SPOOL_AFTER: Duration = Duration::from_millis(500);
/// Time for requests in progress when the journal is open. The callbacks after them wait for it.
const HANDOVER_GRACE: Duration = Duration::from_secs(1);
/// Interval of the readiness check.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);
/// Delays after a failed attempt to open the journal.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(250), max: Duration::from_secs(2) };
/// Interval of the log lines about failed attempts.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The parts of a gateway that has no journal yet.
pub(super) struct Waiting<'a> {
    pub(super) config: &'a Config,
    pub(super) origin: Origin,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) telemetry: &'a Telemetry,
    /// TLS of the gRPC port.
    pub(super) grpc_tls: Option<Arc<ServerTls>>,
    /// Ends the attempts to open the journal.
    pub(super) shutdown: CancellationToken,
}

/// The servers while the journal is not open.
struct EarlyServers {
    spool: Arc<Spool>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Waiting<'_> {
    /// Opens the journal.
    pub(super) async fn open_journal(&self, ports: &Ports) -> Result<Arc<dyn Journal>, StartError> {
        if self.config.journal.engine != JournalEngine::Postgres {
            return self.try_open().await;
        }
        let Some(options) = self.spool_options() else {
            return self.try_open().await;
        };
        let opening = self.shutdown.run_until_cancelled(self.open_when_possible());
        let mut opening = pin!(async { opening.await.unwrap_or(Err(StartError::Stopped)) });
        tokio::select! {
            biased;
            opened = &mut opening => return opened,
            () = sleep(SPOOL_AFTER) => {}
        }
        let servers = self.start_servers(&options, ports)?;
        tracing::warn!(
            callbacks = %ports.addresses.callbacks,
            "the journal is not open yet: callbacks go to journal.spool_dir, and calls are rejected"
        );
        let opened = opening.await;
        servers.stop().await;
        opened
    }

    async fn try_open(&self) -> Result<Arc<dyn Journal>, StartError> {
        open_journal(self.config, self.origin.clone(), self.telemetry.instruments()).await
    }

    fn spool_options(&self) -> Option<SpoolOptions> {
        let journal = &self.config.journal;
        journal.spool_dir.clone().map(|dir| SpoolOptions {
            dir,
            max_bytes: journal.spool_max_bytes,
            origin: self.origin.clone(),
            allow_network_filesystem: journal.allow_network_filesystem,
        })
    }

    /// Tries to open the journal until that succeeds, or a retry cannot help.
    async fn open_when_possible(&self) -> Result<Arc<dyn Journal>, StartError> {
        let throttle = LogThrottle::new(LOG_INTERVAL);
        let mut failures = 0;
        loop {
            let error = match self.try_open().await {
                Err(error) if error.is_temporary() => error,
                opened => return opened,
            };
            failures += 1;
            if let Some(times) = throttle.count(1) {
                tracing::warn!(times, %error, "cannot open the journal yet");
            }
            sleep(BACKOFF.jittered_delay(failures, fastrand::f64())).await;
        }
    }

    fn start_servers(
        &self,
        options: &SpoolOptions,
        ports: &Ports,
    ) -> Result<EarlyServers, StartError> {
        let Self { config, clock, telemetry, .. } = self;
        let journal = Arc::new(UnopenedJournal);
        let spool = Spool::open(options, journal.clone())?;
        let mut files = FileReloader::default();
        if let Some(tls) = &self.grpc_tls {
            tls.reload_with(&mut files);
        }
        let listener = CallbackListener::new(
            config,
            journal,
            Some(spool.clone()),
            clock.clone(),
            clock.clone(),
            telemetry.instruments(),
            &mut files,
        )?;
        let (callbacks, grpc, admin) =
            (share(&ports.callbacks)?, share(&ports.grpc)?, share(&ports.admin)?);
        let console = ports.console.as_ref().map(share).transpose()?;
        let server = unavailable_server(config, self.grpc_tls.clone(), telemetry.instruments())?;
        let stop = CancellationToken::new();
        let serving = watch::Sender::new(spool.has_room());
        let mut tasks = JoinSet::new();
        let limits = ports.limits;
        tasks.spawn(listener.serve(callbacks, limits.callbacks, stop.clone(), HANDOVER_GRACE));
        tasks.spawn(admin_port::serve(
            admin,
            limits.admin,
            (*telemetry).clone(),
            serving.subscribe(),
            watch::channel(None).1,
            stop.clone(),
            stop.clone(),
        ));
        tasks.spawn(update_readiness(spool.clone(), serving, stop.clone()));
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.run_until_cancelled(files.run()).await;
        });
        if let Some(listener) = console {
            // The page shows why the calls are rejected.
            let console = console::server(config, &server)?;
            tasks.spawn(console.serve(listener, limits.console, stop.clone()));
        }
        tasks.spawn(server.serve(grpc, limits.grpc, stop.clone()));
        Ok(EarlyServers { spool, stop, tasks })
    }
}

impl EarlyServers {
    /// Stops accepting connections, and closes the spool. New connections wait for the gateway.
    async fn stop(mut self) {
        self.stop.cancel();
        let finished = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(HANDOVER_GRACE * 2, finished).await.is_err() {
            self.tasks.shutdown().await;
        }
        self.spool.close().await;
    }
}

async fn update_readiness(
    spool: Arc<Spool>,
    serving: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut interval = interval(READINESS_INTERVAL);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        serving.send_replace(spool.has_room());
    }
}

/// Returns a second handle of a port. Connections wait while neither accepts them.
fn share(port: &TcpListener) -> Result<TcpListener, StartError> {
    let share = || TcpListener::from_std(port.as_fd().try_clone_to_owned()?.into());
    share().map_err(StartError::Share)
}
