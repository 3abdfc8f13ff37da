//! Three replicas with one journal in PostgreSQL, which has a synchronous standby.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use thingspace_postgres_server::{Options, Proxy, Server, StandbyOptions, Version};

use super::{
    deployment::{Deployment, Environment, InjectedFault, random_refusals},
    observations::{Observations, check_other_thingspace},
};
use crate::{
    guarantees::is_event,
    postgres::cluster,
    support::{
        cli::check_journal,
        database::SearchedServer,
        disk::FaultyDisk,
        gateway::{Gateway, Setup, TestDir},
        history::reference,
        http::{post, wait_for_readiness},
        requests::{ACCOUNT, esim_callback, watch_account},
        wait::{eventually, in_time},
    },
};

/// The faults of a run.
pub const FAULTS: [InjectedFault; 14] = [
    InjectedFault::Killed,
    InjectedFault::Killed,
    InjectedFault::Stopped,
    InjectedFault::LoginRefused,
    InjectedFault::TokenRevoked,
    InjectedFault::DiskFull,
    InjectedFault::DatabaseCut,
    InjectedFault::DatabaseCut,
    InjectedFault::DatabaseRefused,
    InjectedFault::DatabaseSlow,
    InjectedFault::DatabaseUnreachable,
    InjectedFault::BackendsTerminated,
    InjectedFault::DatabaseKilled,
    InjectedFault::Failover,
];

const REPLICAS: usize = 3;
/// Delay of each direction of a slow connection to the database.
const SLOW: Duration = Duration::from_millis(50);
/// Changes that start while connections are slow.
const CHANGES_WHILE_SLOW: usize = 10;
const OWN_BACKENDS: &str = "application_name = 'thingspace-gateway'";

/// Three replicas, and a primary with a synchronous standby.
pub struct Replicas {
    environment: Environment,
    database: Database,
    replicas: Vec<Replica>,
}

struct Database {
    primary: SearchedServer,
    standby: SearchedServer,
    /// The disk of the primary.
    disk: FaultyDisk,
    /// The disk of the standby.
    standby_disk: FaultyDisk,
}

struct Replica {
    /// Between the replica and the primary.
    proxy: Proxy,
    setup: Setup,
    gateway: Gateway,
    disk: Arc<FaultyDisk>,
    _directory: TestDir,
}

impl Deployment for Replicas {
    async fn start(environment: Environment) -> Self {
        let database = Database::start().await;
        let mut replicas = Vec::new();
        for _ in 0..REPLICAS {
            replicas.push(Replica::start(&environment, &database.primary).await);
        }
        let deployment = Self { environment, database, replicas };
        deployment.announce(None);
        deployment
    }

    async fn inject(&mut self, fault: InjectedFault, random: &mut fastrand::Rng) {
        let number = random.usize(0..REPLICAS);
        match fault {
            InjectedFault::Killed => self.restart(number).await,
            InjectedFault::LoginRefused => self.refuse_login().await,
            InjectedFault::TokenRevoked => self.environment.foreign_client.revoke_token().await,
            InjectedFault::DiskFull => self.fill_disk(random_refusals(random)).await,
            InjectedFault::Stopped => self.stop_until_lease_expires(number).await,
            InjectedFault::DatabaseCut => self.replicas[number].proxy.cut().await,
            InjectedFault::DatabaseRefused => {
                let replica = &self.replicas[number];
                replica.proxy.refuse();
                replica.proxy.cut().await;
                wait_for_readiness(&replica.gateway, 503).await;
                replica.proxy.pass();
                wait_for_readiness(&replica.gateway, 200).await;
            }
            InjectedFault::DatabaseSlow => {
                self.replicas[number].proxy.set_delay(SLOW);
                self.environment.progress.advances(CHANGES_WHILE_SLOW).await;
                self.replicas[number].proxy.pass();
            }
            InjectedFault::DatabaseUnreachable => self.drop_packets(random).await,
            InjectedFault::BackendsTerminated => self.database.terminate_backends().await,
            InjectedFault::DatabaseKilled => {
                self.database.primary.kill().await.expect("it ends");
                self.database.primary.start().await.expect("it starts");
            }
            InjectedFault::Failover => self.fail_over().await,
        }
    }

    fn disks(&self) -> Vec<Arc<FaultyDisk>> {
        self.replicas.iter().map(|replica| Arc::clone(&replica.disk)).collect()
    }

    async fn finish(mut self, observations: &Observations, _seed: u64) -> Vec<String> {
        let mut violations = Vec::new();
        self.compare_replicas(&mut violations).await;
        violations.extend(self.database.check_journal().await);
        for replica in &mut self.replicas {
            replica.gateway.kill().await;
        }
        let [first, ..] = &mut self.replicas[..] else { panic!("{REPLICAS} replicas") };
        check_other_thingspace(&first.setup, &mut violations).await;
        first.gateway = first.setup.start().await;
        let mut client = first.gateway.client().await;
        observations.check_results(&mut client, "after a restart", &mut violations).await;
        observations.check_repeated_calls(&mut client, "after a restart", &mut violations).await;
        violations.extend(self.database.check_journal().await);
        violations
    }
}

impl Replicas {
    /// Announces the addresses of all replicas except one that does not run.
    fn announce(&self, except: Option<usize>) {
        let replicas = self.replicas.iter().enumerate();
        let running = replicas.filter(|(number, _)| Some(*number) != except);
        self.environment.addresses.set(running.map(|(_, replica)| &replica.gateway));
    }

    async fn restart(&mut self, number: usize) {
        self.announce(Some(number));
        let replica = &mut self.replicas[number];
        replica.gateway.kill().await;
        replica.gateway = replica.setup.start().await;
        self.announce(None);
    }

    /// The replicas share a session, and log in only without one.
    async fn refuse_login(&mut self) {
        self.environment.use_wrong_password();
        self.environment.addresses.set([].into_iter());
        for replica in &mut self.replicas {
            replica.gateway.kill().await;
        }
        let forget = "DELETE FROM thingspace_gateway.meta WHERE name = 'kv.thingspace_session'";
        self.database.primary.psql(forget).await.expect("the primary runs");
        for replica in &mut self.replicas {
            replica.gateway = replica.setup.start().await;
        }
        self.announce(None);
        self.environment.probe_until_refused("GATEWAY_CREDENTIALS", 1).await;
        self.environment.use_right_password();
    }

    async fn fill_disk(&self, refusals: usize) {
        self.database.disk.fill();
        self.environment.probe_until_refused("JOURNAL_UNAVAILABLE", refusals).await;
        self.database.disk.empty();
        // A server that cannot create a file of the write-ahead log ends itself.
        let primary = &self.database.primary;
        eventually("the server has recovered", async || {
            if primary.pid().is_none() {
                primary.start().await.expect("it starts");
            }
            primary.psql("SELECT 1").await.is_ok()
        })
        .await;
    }

    async fn stop_until_lease_expires(&self, number: usize) {
        // An earlier fault may have let leases expire.
        self.wait_for_leases(REPLICAS).await;
        let replica = &self.replicas[number];
        replica.gateway.signal(Signal::SIGSTOP);
        self.announce(Some(number));
        self.wait_for_leases(REPLICAS - 1).await;
        replica.gateway.signal(Signal::SIGCONT);
        self.announce(None);
    }

    /// Waits until this number of replicas holds a lease.
    async fn wait_for_leases(&self, replicas: usize) {
        eventually(&format!("{replicas} replicas hold a lease"), async || {
            cluster::leases(&self.database.primary).await == replicas
        })
        .await;
    }

    /// Afterwards the connections continue or are cut.
    async fn drop_packets(&self, random: &mut fastrand::Rng) {
        for replica in &self.replicas {
            replica.proxy.black_hole();
        }
        for replica in &self.replicas {
            let probe = esim_callback("unreachable", 0).to_string();
            let url = replica.gateway.callback_url(cluster::ESIM_SERVICE);
            assert_eq!(in_time(post(&url, probe)).await.0, 503);
        }
        for replica in &self.replicas {
            if random.bool() {
                replica.proxy.cut().await;
            }
            replica.proxy.pass();
        }
    }

    /// Each confirmed commit is on the standby. Afterwards there is a new synchronous standby.
    async fn fail_over(&mut self) {
        self.database.primary.kill().await.expect("it ends");
        self.database.standby.promote().await.expect("it is promoted");
        for replica in &self.replicas {
            replica.proxy.retarget(self.database.standby.addr());
            replica.proxy.cut().await;
        }
        self.database.replace_standby().await;
    }

    /// Checks that all replicas have the same events. Callbacks of foreign requests can still arrive, so one that is
    /// read later can have more.
    async fn compare_replicas(&self, violations: &mut Vec<String>) {
        let mut earlier = Vec::new();
        for replica in &self.replicas {
            let mut client = replica.gateway.client().await;
            let mut events = reference(&mut client, watch_account(ACCOUNT)).await.messages;
            events.retain(is_event);
            if !events.starts_with(&earlier) {
                let (one, other) = (earlier.len(), events.len());
                violations.push(format!("replicas with different events: {one} and {other}"));
            }
            earlier = events;
        }
    }
}

impl Database {
    async fn start() -> Self {
        let disk = FaultyDisk::new(&std::env::temp_dir());
        let options = Options::new(Version::Debian);
        let options = disk
            .environment()
            .fold(options, |options, (name, value)| options.environment(name, value));
        let primary = cluster::start_server_with(options).await;
        let (standby, standby_disk) = start_standby(&primary).await;
        Self { primary, standby, disk, standby_disk }
    }

    /// Makes the standby the primary, and starts another standby.
    async fn replace_standby(&mut self) {
        let (standby, standby_disk) = start_standby(&self.standby).await;
        self.primary = std::mem::replace(&mut self.standby, standby);
        self.disk = std::mem::replace(&mut self.standby_disk, standby_disk);
    }

    /// Checks the journal, which replicas use.
    async fn check_journal(&self) -> Vec<String> {
        let url = format!("--journal.url={}", self.primary.url("postgres"));
        check_journal(&["--journal.engine=postgres", &url]).await
    }

    async fn terminate_backends(&self) {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OWN_BACKENDS}"
        );
        self.primary.psql(&sql).await.expect("the primary runs");
    }
}

async fn start_standby(primary: &Server) -> (SearchedServer, FaultyDisk) {
    let disk = FaultyDisk::new(&std::env::temp_dir());
    let options = StandbyOptions::synchronous();
    let options =
        disk.environment().fold(options, |options, (name, value)| options.environment(name, value));
    (primary.standby(options).await.expect("a standby").into(), disk)
}

impl Replica {
    async fn start(environment: &Environment, primary: &Server) -> Self {
        let directory = TestDir::new();
        let disk = FaultyDisk::new(directory.path());
        let proxy = Proxy::start(primary.addr()).await.expect("a proxy");
        let setup = cluster::with_database(environment.setup(&directory), proxy.addr());
        let setup = disk.attach(setup);
        let gateway = setup.start().await;
        Self { proxy, setup, gateway, disk: Arc::new(disk), _directory: directory }
    }
}
