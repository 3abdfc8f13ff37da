//! Replicas with one database and one fake ThingSpace.

use std::net::SocketAddr;

use futures_util::future::join_all;
use thingspace_gateway::proto::{Change, ChangeState, WatchRequestRequest};
use thingspace_postgres_server::{Options, Proxy, Server, Version};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::support::{
    database::SearchedServer,
    gateway::{Client, Gateway, GatewayExit, Setup, TestDir},
    requests::{ChangeCall, Watch, WatchTranscript, get_by_key, until_caught_up, watch_key},
    thingspace::FakeThingSpace,
    wait::{eventually_some, in_time},
};

/// The service in the path of the callbacks of eSIM changes.
pub const ESIM_SERVICE: &str = "DeviceProfileService";

/// Replicas that share a database and a fake ThingSpace.
pub struct Cluster {
    pub server: SearchedServer,
    pub thingspace: FakeThingSpace,
    pub replicas: Vec<Replica>,
}

/// A gateway process. Its connections to the database go through a proxy.
pub struct Replica {
    pub proxy: Proxy,
    /// Settings of the next start.
    pub setup: Setup,
    pub gateway: Gateway,
    pub client: Client,
    _directory: TestDir,
}

/// Starts a server that syncs each commit.
pub async fn start_server() -> SearchedServer {
    start_server_with(Options::new(Version::Debian)).await
}

pub async fn start_server_with(options: Options) -> SearchedServer {
    SearchedServer::start_new(options).await
}

/// Settings of a replica whose database has this address.
pub fn setup(thingspace: &str, directory: &TestDir, database: SocketAddr) -> Setup {
    with_database(Setup::serve(thingspace, directory), database)
}

/// Keeps the journal in the database with this address.
pub fn with_database(setup: Setup, database: SocketAddr) -> Setup {
    setup
        .set("journal.engine", "postgres")
        .set("journal.url", &format!("postgresql://postgres@{database}/postgres"))
}

impl Cluster {
    /// Starts this number of replicas.
    pub async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, |setup| setup).await
    }

    /// Starts this number of replicas with changed settings.
    pub async fn start_with(replicas: usize, configure: impl Fn(Setup) -> Setup) -> Self {
        let (server, thingspace) = tokio::join!(start_server(), FakeThingSpace::start());
        let start = || Replica::start(&server, &configure, &thingspace);
        let replicas = join_all((0..replicas).map(|_| start())).await;
        Self { server, thingspace, replicas }
    }

    /// Adds a replica.
    pub async fn add(&mut self, configure: impl FnOnce(Setup) -> Setup) {
        let replica = Replica::start(&self.server, configure, &self.thingspace).await;
        self.replicas.push(replica);
    }

    /// Runs SQL on the database, not through a proxy. Returns the rows.
    pub async fn sql(&self, sql: &str) -> String {
        let sql = format!("SET search_path = thingspace_gateway; {sql}");
        self.server.psql(&sql).await.expect("a result").trim().to_owned()
    }
}

/// Number of replicas that hold a lease.
pub async fn leases(server: &Server) -> usize {
    let sql = "SELECT count(*) FROM thingspace_gateway.replica
         WHERE lease_until > clock_timestamp()";
    let count = server.psql(sql).await.expect("a result");
    count.trim().parse().expect("a number")
}

impl Replica {
    async fn start(
        server: &Server,
        configure: impl FnOnce(Setup) -> Setup,
        thingspace: &FakeThingSpace,
    ) -> Self {
        let directory = TestDir::new();
        let proxy = Proxy::start(server.addr()).await.expect("a proxy");
        let setup = configure(setup(&thingspace.base_url(), &directory, proxy.addr()));
        let gateway = setup.start().await;
        Self { client: gateway.client().await, proxy, setup, gateway, _directory: directory }
    }

    /// Starts the process again after it has ended.
    pub async fn start_again(&mut self) {
        self.gateway = self.setup.start().await;
        self.client = self.gateway.client().await;
    }

    /// Stops the process with SIGTERM. It must end with exit code 0. Returns the log.
    pub async fn terminate(&mut self) -> String {
        let GatewayExit { code, log } = self.gateway.terminate().await;
        assert_eq!(code, Some(0), "{log}");
        log
    }

    /// Makes a change, which must return OK.
    pub async fn change(&self, request: impl ChangeCall) -> Change {
        self.try_change(request).await.expect("OK")
    }

    /// Makes a change in the background.
    pub fn start_change(&self, request: impl ChangeCall) -> JoinHandle<Result<Change, Status>> {
        tokio::spawn(request.call(self.client.clone()))
    }

    pub async fn try_change(&self, request: impl ChangeCall) -> Result<Change, Status> {
        in_time(request.call(self.client.clone())).await
    }

    /// Returns the change with this key.
    pub async fn get(&self, key: &str) -> Change {
        get_by_key(&mut self.client.clone(), key).await.expect("a change")
    }

    /// Waits until the change with this key is in a state, and returns it.
    pub async fn wait_for(&self, key: &str, state: ChangeState) -> Change {
        eventually_some(&format!("{key} is {state:?}"), async || {
            let change = get_by_key(&mut self.client.clone(), key).await.ok();
            change.filter(|change| change.state() == state)
        })
        .await
    }

    pub async fn watch(&self, request: WatchRequestRequest) -> Watch {
        Watch::open(&mut self.client.clone(), request).await
    }

    /// Returns all stored messages of the change with this key.
    pub async fn stored(&self, key: &str) -> WatchTranscript {
        WatchTranscript::record(&mut self.client.clone(), until_caught_up(watch_key(key))).await
    }

    /// URL of the callbacks of eSIM changes.
    pub fn esim_url(&self) -> String {
        self.gateway.callback_url(ESIM_SERVICE)
    }
}
