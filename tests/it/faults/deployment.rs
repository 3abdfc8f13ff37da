//! The gateway processes of a run, and the faults that they meet.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic_types::StatusExt as _;

use super::{
    clients::connect,
    observations::Observations,
    sandbox::{ForeignClient, PASSWORD},
};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Gateway, Setup, TestDir},
    report,
    requests::esim,
    wait::{TEST_TIMEOUT, in_time},
};

/// Gateway processes with one journal.
pub trait Deployment: Sized {
    /// Starts the processes.
    async fn start(environment: Environment) -> Self;

    /// Injects a fault, and waits until it is over.
    async fn inject(&mut self, fault: InjectedFault, random: &mut fastrand::Rng);

    /// The disk and the system clock of each process.
    fn disks(&self) -> Vec<Arc<FaultyDisk>>;

    /// Injects the faults after a run, and returns the violations.
    async fn finish(self, observations: &Observations, seed: u64) -> Vec<String>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// A kill and a restart of a process.
    Killed,
    /// Restarts of all processes, with a wrong password until ThingSpace has refused it.
    LoginRefused,
    /// The access token is revoked.
    TokenRevoked,
    /// The disk of the journal is full.
    DiskFull,
    /// A replica is stopped by SIGSTOP until its lease has expired, and then continued.
    Stopped,
    /// The connections of a replica to the database are cut.
    DatabaseCut,
    /// A replica cannot connect to the database.
    DatabaseRefused,
    /// The connections of a replica to the database are slow.
    DatabaseSlow,
    /// The network between the database and all replicas drops everything.
    DatabaseUnreachable,
    /// `pg_terminate_backend` for all connections of the replicas.
    BackendsTerminated,
    /// A kill and a restart of the database.
    DatabaseKilled,
    /// A kill of the primary database, and the promotion of its synchronous standby.
    Failover,
}

/// A fault, and its time.
#[derive(Debug, Clone, Copy)]
pub struct FaultInterval {
    pub fault: InjectedFault,
    pub from: Instant,
    pub to: Instant,
}

/// The environment of the gateway processes.
pub struct Environment {
    /// The base URL of the sandbox, through a proxy.
    pub base_url: String,
    /// The file with the UWS password.
    pub password: PathBuf,
    pub addresses: Arc<GatewayAddresses>,
    /// Progress of the clients.
    pub progress: Progress,
    pub foreign_client: ForeignClient,
    /// The rule that a build with the feature `failpoints` breaks.
    pub failpoint: Option<String>,
}

/// Addresses of the running gateways for clients and for callbacks.
#[derive(Default)]
pub struct GatewayAddresses {
    pub grpc: watch::Sender<Vec<SocketAddr>>,
    pub callbacks: watch::Sender<Vec<SocketAddr>>,
}

/// The present addresses; empty while no gateway runs.
pub type Addresses = watch::Receiver<Vec<SocketAddr>>;

/// Number of changes that clients have started, and that they may start, of a planned number.
#[derive(Clone)]
pub struct Progress {
    started: watch::Sender<usize>,
    allowed: watch::Sender<usize>,
    planned: usize,
}

/// Devices from this number belong to no planned change.
const FIRST_PROBE_DEVICE: usize = 90_000_000;

/// Injects faults, each after a random number of calls.
pub async fn inject_all(
    deployment: &mut impl Deployment,
    faults: &[InjectedFault],
    progress: &Progress,
    seed: u64,
) -> Vec<FaultInterval> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
    let mut faults = faults.to_vec();
    random.shuffle(&mut faults);
    let mut moments: Vec<_> = faults.iter().map(|_| random.usize(1..progress.planned)).collect();
    moments.sort_unstable();
    let mut intervals = Vec::new();
    for (number, (fault, moment)) in faults.into_iter().zip(&moments).enumerate() {
        // A long fault does not use up the calls that later ones are to meet.
        progress.allow(moments.get(number + 2).copied());
        progress.reaches(*moment).await;
        // A random delay, so that the fault meets calls at different stages.
        for _ in 0..random.usize(0..2_000) {
            tokio::task::yield_now().await;
        }
        let from = Instant::now();
        // A failover starts two servers.
        let injected = timeout(2 * TEST_TIMEOUT, deployment.inject(fault, &mut random)).await;
        injected.unwrap_or_else(|_| panic!("{fault:?} is not over in time"));
        let to = Instant::now();
        report(format_args!("seed {seed}: {} for {:.1?}", fault.name(), to - from));
        intervals.push(FaultInterval { fault, from, to });
    }
    progress.allow(None);
    intervals
}

/// Shifts the system clocks of random processes ahead and back, each time after a random number of calls.
pub async fn shift_clocks(disks: Vec<Arc<FaultyDisk>>, progress: &Progress, seed: u64) {
    /// Offsets of a clock in days.
    const SHIFTS: [i64; 4] = [401, 0, -401, 0];
    let mut random = fastrand::Rng::with_seed(seed ^ 0x636c_6f63);
    let mut moments = SHIFTS.map(|_| random.usize(1..progress.planned));
    moments.sort_unstable();
    for (moment, days) in moments.into_iter().zip(SHIFTS) {
        progress.reaches(moment).await;
        disks[random.usize(0..disks.len())].set_clock_ahead(days);
    }
}

// === impl InjectedFault ===

impl InjectedFault {
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "kill -9",
            Self::LoginRefused => "log-in refused",
            Self::TokenRevoked => "token revoked",
            Self::DiskFull => "disk full",
            Self::Stopped => "replica stopped",
            Self::DatabaseCut => "database connections cut",
            Self::DatabaseRefused => "database connections refused",
            Self::DatabaseSlow => "database connections slow",
            Self::DatabaseUnreachable => "database unreachable",
            Self::BackendsTerminated => "backends terminated",
            Self::DatabaseKilled => "database killed",
            Self::Failover => "failover",
        }
    }
}

// === impl Environment ===

impl Environment {
    /// Settings of a gateway whose files are in this directory.
    pub fn setup(&self, directory: &TestDir) -> Setup {
        let setup = Setup::serve(&self.base_url, directory)
            .without("TSGW_THINGSPACE__UWS_PASSWORD")
            .set("thingspace.uws_password_file", &self.password.to_string_lossy())
            .set("changes.attribution_quiet_period", "500ms")
            .set("changes.reconcile_after", "1s")
            .set("changes.overdue_after", "4s")
            .set("changes.close_after", "6s");
        match &self.failpoint {
            Some(name) => setup.failpoint(name),
            None => setup,
        }
    }

    pub fn use_wrong_password(&self) {
        fs::write(&self.password, "wrong").expect("a file");
    }

    pub fn use_right_password(&self) {
        fs::write(&self.password, PASSWORD).expect("a file");
    }

    /// Makes changes of other devices until this number of them has failed with this reason.
    pub async fn probe_until_refused(&self, reason: &str, refusals: usize) {
        let mut refused_so_far = 0;
        let probing = async {
            for number in FIRST_PROBE_DEVICE.. {
                let mut client = connect(&mut self.addresses.grpc.subscribe()).await;
                let probe = esim(&format!("probe-{reason}-{number}"), [number]);
                let refused = client.change_esim_plan(probe).await;
                let info = refused.err().and_then(|status| status.get_details_error_info());
                refused_so_far += usize::from(info.is_some_and(|info| info.reason == reason));
                if refused_so_far == refusals {
                    return;
                }
            }
        };
        in_time(probing).await;
    }
}

// === impl GatewayAddresses ===

impl GatewayAddresses {
    pub fn set<'g>(&self, running: impl Iterator<Item = &'g Gateway> + Clone) {
        self.grpc.send_replace(running.clone().map(|gateway| gateway.grpc).collect());
        self.callbacks.send_replace(running.map(|gateway| gateway.callbacks).collect());
    }
}

// === impl Progress ===

impl Progress {
    pub fn new(planned: usize) -> Self {
        Self { started: watch::Sender::new(0), allowed: watch::Sender::new(0), planned }
    }

    /// Allows clients to start this number of changes, or all.
    fn allow(&self, count: Option<usize>) {
        self.allowed.send_replace(count.unwrap_or(self.planned));
    }

    /// Counts the start of a change, once it is allowed.
    pub async fn start_change(&self) {
        let mut allowed = self.allowed.subscribe();
        let is_started = || {
            let allowed = *self.allowed.borrow();
            self.started.send_if_modified(|started| {
                let may_start = *started < allowed;
                *started += usize::from(may_start);
                may_start
            })
        };
        while !is_started() {
            allowed.changed().await.expect("`self` has the sender");
        }
    }

    /// Waits until this number of changes has started.
    pub async fn reaches(&self, count: usize) {
        let mut started = self.started.subscribe();
        while *started.borrow_and_update() < count.min(self.planned) {
            // No change starts during a long fault.
            let changed = timeout(2 * TEST_TIMEOUT, started.changed()).await;
            changed.expect("clients make progress").expect("`self` has the sender");
        }
    }

    /// Waits until this number of further changes has started, or as many as are allowed.
    pub async fn advances(&self, count: usize) {
        let started = *self.started.borrow();
        let allowed = *self.allowed.borrow();
        self.reaches(allowed.min(started + count)).await;
    }
}

/// A random number of refusals.
pub fn random_refusals(random: &mut fastrand::Rng) -> usize {
    random.usize(1..20)
}
