use std::{
    collections::HashSet,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use thingspace_postgres_server::{Options, Proxy, Server, StandbyOptions, Version};
use thingspace_settings::Secret;
use tokio::{
    sync::{Notify, OnceCell},
    task::spawn_blocking,
    time::timeout,
};

use super::{connection::Connector, database::PostgresDatabase, url::ConnectionSettings, *};
use crate::{
    callbacks::payload,
    domain::{clock::Timestamp, newtypes::RequestId, state::ChangeState},
    journal::{
        CheckReport, Commit, CommitListener, Durability, Journal, JournalError, NewResult, Origin,
        Rate, ReceivedCallback, Stored, WatchTarget,
        conformance::{self, Engine, every_row::fill},
        postgres::transfer::TransferDatabase,
        transfer::{TimeLimit, tests::NOON},
    },
    telemetry::Instruments,
};

/// Maximum time that a test waits for one condition.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The server of all tests of a process.
static SERVER: OnceCell<Server> = OnceCell::const_new();
/// The number of databases in it.
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A database of its own.
struct Database(OnceCell<PostgresOptions>);

impl Database {
    fn new() -> Self {
        Self(OnceCell::new())
    }

    async fn options(&self) -> &PostgresOptions {
        self.0.get_or_init(create_database).await
    }
}

pub(super) async fn create_database() -> PostgresOptions {
    create_database_behind(async |address| address).await
}

/// Creates a database, and connects to it through another address.
async fn create_database_behind(
    reroute: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
) -> PostgresOptions {
    let start = async || {
        let options = Options::new(Version::Debian).without_fsync();
        Server::start_new(options.setting("max_connections = 500")).await.unwrap()
    };
    let server = SERVER.get_or_init(start).await;
    let name = format!("journal{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap();
    let address = reroute(server.addr()).await;
    PostgresOptions {
        url: Secret::new(format!("postgresql://postgres@{address}/{name}")),
        password: None,
        max_connections: 4,
        allow_relaxed_durability: true,
        replica_name: "a".into(),
        origin: Origin::sandbox(),
        instruments: Instruments::noop(),
    }
}

/// Replaces a database by an empty one. Ends its connections.
pub(super) async fn replace_database(options: &PostgresOptions) {
    let (server, name) = (SERVER.get().unwrap(), database_name(options));
    server.psql(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    server.create_database(&name).await.unwrap();
}

/// Deletes the journal of a database. Its connections stay open.
pub(super) async fn drop_schema(options: &PostgresOptions) {
    let (server, name) = (SERVER.get().unwrap(), database_name(options));
    server.psql_in(&name, "DROP SCHEMA thingspace_gateway CASCADE").await.unwrap();
}

fn database_name(options: &PostgresOptions) -> String {
    let url = options.url.load().unwrap();
    url.expose_secret().rsplit_once('/').unwrap().1.to_owned()
}

impl Engine for Database {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        Box::pin(async { open(self.options().await).await.unwrap() })
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = CheckReport> + Send + '_>> {
        Box::pin(async {
            let options = self.options().await;
            let database = TransferDatabase {
                url: options.url.clone(),
                password: None,
                allow_relaxed_durability: true,
            };
            let limit = TimeLimit::start(Duration::from_secs(60));
            let checking = spawn_blocking(move || transfer::check(&database, limit));
            checking.await.unwrap().unwrap()
        })
    }
}

conformance::tests!(Database::new());

/// Two replicas of one journal.
async fn two_replicas() -> [Arc<dyn Journal>; 2] {
    let options = create_database().await;
    let other = PostgresOptions { replica_name: "b".into(), ..options.clone() };
    [open(&options).await.unwrap(), open(&other).await.unwrap()]
}

/// Runs statements in a transaction on a connection of their own.
async fn in_transaction(run: impl FnOnce(&PostgresDatabase<'_>) + Send + 'static) {
    let options = create_database().await;
    let settings = ConnectionSettings::parse(&options.url, None).unwrap();
    let connection = Connector::new(settings).unwrap().connect(None).await.unwrap();
    let run = move || run(&PostgresDatabase::begin(&connection, "BEGIN"));
    spawn_blocking(run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_postgres_transaction_is_that_of_the_statement_that_failed_first() {
    in_transaction(|db| {
        db.write_one("SELECT 1 / 0", &[]).unwrap();
        let later = db.as_database().execute("SELECT 1", &[]).unwrap_err();
        assert!(later.to_string().contains("25P02"), "{later}");
        let cause = db.cause_of(later).to_string();
        assert!(cause.contains("division by zero"), "{cause}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_that_is_not_read_yet_blocks_no_other_statement_of_postgres() {
    in_transaction(|db| {
        let large = "SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
        let large = db.send(large, &[]).unwrap();
        // Is prepared first.
        let (small, _) = db.block_on(db.send("SELECT 1", &[]).unwrap()).unwrap();
        assert_eq!(small.len(), 1);
        let (large, _) = db.block_on(large).unwrap();
        assert_eq!(large.len(), 10_000);
        db.send_command("COMMIT");
        db.wait().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_held_by_one_replica_until_it_is_released_or_expires() {
    let [a, b] = two_replicas().await.map(|journal| journal.coordination().unwrap());
    let minute = Duration::from_secs(60);
    assert!(a.acquire_lease("job", minute).await.unwrap());
    assert!(!b.acquire_lease("job", minute).await.unwrap());
    assert!(b.acquire_lease("other", minute).await.unwrap());
    b.release_lease("job").await.unwrap();
    assert!(!b.acquire_lease("job", minute).await.unwrap());
    // The holder may also make it shorter.
    assert!(a.acquire_lease("job", Duration::ZERO).await.unwrap());
    assert!(b.acquire_lease("job", minute).await.unwrap());
    b.release_lease("job").await.unwrap();
    assert!(a.acquire_lease("job", minute).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_keeps_its_leases_when_it_gets_another_number() {
    let [a, b] = two_replicas().await;
    let [a_leases, b_leases] = [&a, &b].map(|journal| journal.coordination().unwrap());
    let minute = Duration::from_secs(60);
    // A replica without commits has no number yet.
    assert!(a_leases.acquire_lease("job", minute).await.unwrap());
    assert!(!b_leases.acquire_lease("job", minute).await.unwrap());
    for journal in [&a, &b] {
        journal.put_kv("name".into(), b"value".to_vec()).await.unwrap();
    }
    assert!(!b_leases.acquire_lease("job", minute).await.unwrap());
    assert!(a_leases.acquire_lease("job", minute).await.unwrap());
    a_leases.release_lease("job").await.unwrap();
    assert!(b_leases.acquire_lease("job", minute).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_releases_its_leases() {
    let [a, b] = two_replicas().await;
    let [a_leases, b_leases] = [&a, &b].map(|journal| journal.coordination().unwrap());
    let minute = Duration::from_secs(60);
    assert!(a_leases.acquire_lease("job", minute).await.unwrap());
    assert!(b_leases.acquire_lease("other", minute).await.unwrap());
    a.close().await;
    assert!(b_leases.acquire_lease("job", minute).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_permits_of_a_rate_limit() {
    let [a, b] = two_replicas().await.map(|journal| journal.coordination().unwrap());
    let rate = Rate { per_minute: 3 };
    for replica in [&a, &b, &a] {
        assert_eq!(replica.take_permit("changes", rate).await.unwrap(), Ok(()));
    }
    let delay = b.take_permit("changes", rate).await.unwrap().unwrap_err();
    assert!(delay <= Duration::from_secs(20), "{delay:?}");
    a.give_back_permit("changes", rate).await.unwrap();
    assert_eq!(b.take_permit("changes", rate).await.unwrap(), Ok(()));
    assert!(a.take_permit("changes", rate).await.unwrap().is_err());
    assert_eq!(b.take_permit("lookups", rate).await.unwrap(), Ok(()));
    a.pause_permits("lookups", Duration::from_secs(3_600)).await.unwrap();
    let delay = b.take_permit("lookups", rate).await.unwrap().unwrap_err();
    assert!(delay > Duration::from_secs(3_000), "{delay:?}");
}

pub(super) fn callback(request: &str) -> ReceivedCallback {
    let body = format!(r#"{{"requestId":"{request}"}}"#);
    ReceivedCallback {
        callback: payload::parse(body.as_bytes()).unwrap(),
        account: None,
        service: None,
        receive_time: Timestamp::from_micros(1),
        forwarding: None,
    }
}

fn new_at(position: u64) -> Stored {
    Stored::New(NewResult { position, change: None })
}

/// Stores a callback as soon as the journal can be written.
async fn store_when_possible(journal: &dyn Journal, request: &str) -> Stored {
    loop {
        match journal.store_callback(callback(request)).await {
            Ok(stored) => return stored,
            Err(JournalError::Unavailable(_) | JournalError::MayBeStored(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits for a new epoch, and for commits.
#[derive(Default)]
struct Listener {
    targets: Mutex<HashSet<WatchTarget>>,
    committed: Notify,
    new_epoch: Notify,
}

impl CommitListener for Listener {
    fn on_commit(&self, commit: &Commit) {
        self.targets.lock().extend(commit.targets.iter().cloned());
        self.committed.notify_one();
    }

    fn on_new_epoch(&self) {
        self.new_epoch.notify_one();
    }
}

impl Listener {
    /// Waits for an event of a request.
    async fn wait_for(&self, request: &str) {
        let target = WatchTarget::Request(RequestId::parse(request).unwrap());
        let waiting = async {
            while !self.targets.lock().contains(&target) {
                self.committed.notified().await;
            }
        };
        timeout(TIMEOUT, waiting).await.unwrap();
    }
}

/// Repeats a check until it returns true.
async fn eventually(mut check: impl AsyncFnMut() -> bool) {
    let checking = async { while !check().await {} };
    timeout(TIMEOUT, checking).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_a_failover_has_lost_start_a_new_epoch_on_every_replica() {
    let primary = Server::start_new(Options::new(Version::Debian)).await.unwrap();
    primary.create_database("journal").await.unwrap();
    let replication = Proxy::start(primary.addr()).await.unwrap();
    let standby = StandbyOptions::asynchronous().via(replication.addr());
    let standby = primary.standby(standby).await.unwrap();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    let options = PostgresOptions {
        url: Secret::new(format!("postgresql://postgres@{hosts}/journal")),
        ..create_database().await
    };
    let journals = [open(&options).await.unwrap(), open(&options).await.unwrap()];
    let listeners = [Arc::new(Listener::default()), Arc::new(Listener::default())];
    for (journal, listener) in journals.iter().zip(&listeners) {
        journal.add_commit_listener(Arc::clone(listener) as Arc<dyn CommitListener>);
    }
    let [a, b] = &journals;
    assert_eq!(a.store_callback(callback("kept")).await.unwrap(), new_at(1));
    let replicated = "SELECT last_position FROM thingspace_gateway.head";
    // The tables are replicated too.
    let is_replicated = async || matches!(standby.psql_in("journal", replicated).await, Ok(last) if last.trim() == "1");
    eventually(is_replicated).await;
    replication.black_hole();
    assert_eq!(a.store_callback(callback("lost")).await.unwrap(), new_at(2));
    let epoch = a.epoch();
    primary.kill().await.unwrap();
    standby.promote().await.unwrap();

    // A knows of its lost commit, whichever of the two connects first.
    assert!(matches!(store_when_possible(&**b, "later").await, Stored::New(_)));
    for (journal, listener) in journals.iter().zip(&listeners) {
        timeout(TIMEOUT, listener.new_epoch.notified()).await.unwrap();
        assert_ne!(journal.epoch(), epoch);
    }
    assert_eq!(a.epoch(), b.epoch());
    assert!(matches!(store_when_possible(&**a, "lost").await, Stored::New(_)));
    assert_eq!(store_when_possible(&**a, "kept").await, Stored::Duplicate);
    // Commits in the new epoch wake the other replica, whatever positions it had seen before. Its writer can adopt the epoch
    // before its follower does, which then announces the epoch again instead of the commits since.
    let mut number = 0;
    let wakes = async || {
        number += 1;
        let request = format!("new-{number}");
        store_when_possible(&**a, &request).await;
        timeout(Duration::from_secs(5), listeners[1].wait_for(&request)).await.is_ok()
    };
    eventually(wakes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_backend_is_terminated_while_it_waits_for_the_standby_is_settled() {
    let primary = Server::start_new(Options::new(Version::Debian)).await.unwrap();
    primary.create_database("journal").await.unwrap();
    let replication = Proxy::start(primary.addr()).await.unwrap();
    let standby = StandbyOptions::synchronous().via(replication.addr());
    let _standby = primary.standby(standby).await.unwrap();
    let url = Secret::new(format!("postgresql://postgres@{}/journal", primary.addr()));
    let journal = open(&PostgresOptions { url, ..create_database().await }).await.unwrap();
    assert_eq!(journal.info().durability, Durability::Replicated);
    assert_eq!(journal.store_callback(callback("one")).await.unwrap(), new_at(1));

    replication.black_hole();
    let other = Arc::clone(&journal);
    let storing = tokio::spawn(async move { other.store_callback(callback("two")).await });
    // The commit is on the disk of the primary, and waits for the standby.
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    eventually(async || primary.psql_in("journal", terminate).await.unwrap().trim() != "0").await;
    replication.pass();
    let stored = storing.await.unwrap();
    assert!(matches!(stored, Ok(Stored::New(_))), "{stored:?}");
    assert_eq!(store_when_possible(&*journal, "two").await, Stored::Duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_response_is_lost_is_settled_by_reading_back() {
    let mut proxy = None;
    let reroute = async |address| {
        let started = Proxy::start(address).await.unwrap();
        proxy.insert(started).addr()
    };
    let journal = open(&create_database_behind(reroute).await).await.unwrap();
    let proxy = proxy.unwrap();
    assert_eq!(journal.store_callback(callback("one")).await.unwrap(), new_at(1));
    proxy.cut_before_reply_to("COMMIT");
    let again = match journal.store_callback(callback("two")).await {
        Ok(Stored::New(_)) => Stored::Duplicate,
        // The COMMIT was that of another transaction, so the connection was lost before this one was sent.
        Err(JournalError::Unavailable(_)) => new_at(2),
        stored => panic!("{stored:?}"),
    };
    assert_eq!(store_when_possible(&*journal, "two").await, again);
}

/// In a new epoch, another replica can have the number of the lease, and as many commits.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_not_settled_by_a_lease_of_another_epoch() {
    let mut proxy = None;
    let mut direct = None;
    let reroute = async |address| {
        direct = Some(address);
        let started = Proxy::start(address).await.unwrap();
        proxy.insert(started).addr()
    };
    let options = create_database_behind(reroute).await;
    let journal = open(&options).await.unwrap();
    let (proxy, direct) = (proxy.unwrap(), direct.unwrap());
    let url = options.url.load().unwrap();
    let url = url.expose_secret().replace(&proxy.addr().to_string(), &direct.to_string());
    let connect = async || {
        let settings = ConnectionSettings::parse(&Secret::new(url.clone()), None).unwrap();
        Connector::new(settings).unwrap().connect(None).await.unwrap()
    };
    let (holder, successor) = (connect().await, Arc::new(connect().await));
    let (server, name) = (SERVER.get().unwrap(), database_name(&options));
    let waiting = async |number: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually(async || server.psql_in(&name, sql).await.unwrap().trim() == number).await;
    };
    for attempt in 0..20 {
        // The batch waits for the head row, and the new epoch waits for the batch.
        let lock = "BEGIN; SELECT 1 FROM thingspace_gateway.head FOR UPDATE";
        holder.client().batch_execute(lock).await.unwrap();
        let request = format!("r-{attempt}");
        let seen = journal.kept_range().await.unwrap().last;
        let (storing, other) = (request.clone(), Arc::clone(&journal));
        let stored = tokio::spawn(async move { other.store_callback(callback(&storing)).await });
        waiting("1").await;
        let (starting, epoch) = (Arc::clone(&successor), attempt + 1);
        let started = tokio::spawn(async move {
            let client = starting.client();
            client.batch_execute("BEGIN").await.unwrap();
            let head = format!(
                "UPDATE thingspace_gateway.head SET epoch = {epoch} RETURNING last_position"
            );
            let last_position = client.query_one(&head, &[]).await.unwrap().get::<_, i64>(0);
            let meta = format!(
                "UPDATE thingspace_gateway.meta SET value = int8send({epoch}) WHERE name = 'epoch'; COMMIT"
            );
            client.batch_execute(&meta).await.unwrap();
            last_position.cast_unsigned()
        });
        waiting("2").await;
        proxy.cut_before_reply_to("COMMIT");
        holder.client().batch_execute("COMMIT").await.unwrap();
        let last_position = started.await.unwrap();
        match stored.await.unwrap() {
            // The first batch had another commit, and this is one of the new epoch.
            Ok(Stored::New(NewResult { position, .. })) => assert!(position > last_position),
            Ok(Stored::Duplicate) => panic!("it is stored for the first time"),
            // The connection was lost, and the commit is not known to have succeeded.
            Err(_) if last_position > seen => {
                assert_eq!(store_when_possible(&*journal, &request).await, Stored::Duplicate);
                return;
            }
            Err(_) => {}
        }
    }
    panic!("no commit was in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_loss_starts_a_new_epoch_unless_a_replica_is_running() {
    let options = create_database().await;
    let accept_loss = async || {
        let url = options.url.clone();
        tokio::task::spawn_blocking(move || accept_loss(&url, None, &[])).await.unwrap()
    };
    let empty = accept_loss().await.unwrap_err();
    assert!(matches!(empty.0, OpenFailure::NoJournal), "{empty}");
    let journal = open(&options).await.unwrap();
    fill(&*journal).await;
    let last_position = journal.kept_range().await.unwrap().last + 1;
    assert_eq!(journal.store_callback(callback("kept")).await.unwrap(), new_at(last_position));
    let epoch = journal.epoch();
    let running = accept_loss().await.unwrap_err();
    assert!(matches!(&running.0, OpenFailure::InUse(names) if names == "a"), "{running}");
    journal.close().await;
    let accepted = accept_loss().await.unwrap();
    assert_eq!(accepted, AcceptedLoss { last_position });
    let journal = open(&options).await.unwrap();
    assert_ne!(journal.epoch(), epoch);
    assert_eq!(journal.store_callback(callback("later")).await.unwrap(), new_at(last_position + 1));
    assert_eq!(journal.store_callback(callback("kept")).await.unwrap(), Stored::Duplicate);
    // A QUEUED change may have been sent afterwards.
    let interrupted = journal.interrupted().await.unwrap();
    assert_eq!(interrupted.len(), 3);
    for change in interrupted {
        let settled = journal.settle(change, NOON).await.unwrap().unwrap();
        assert_eq!(settled.state, ChangeState::OutcomeUnknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_the_schema_needs_no_other_right() {
    let server = Server::start_new(Options::new(Version::Debian).without_fsync()).await.unwrap();
    server.psql("CREATE ROLE gateway LOGIN").await.unwrap();
    server.create_database("journal").await.unwrap();
    server.psql("REVOKE ALL ON DATABASE journal FROM PUBLIC").await.unwrap();
    server.psql("GRANT CONNECT ON DATABASE journal TO gateway").await.unwrap();
    let options = PostgresOptions {
        url: Secret::new(format!("postgresql://gateway@{}/journal", server.addr())),
        ..create_database().await
    };
    let Err(error) = open(&options).await else { panic!("the role can create a schema") };
    assert!(error.to_string().contains("permission denied for database journal"), "{error}");
    let schema = "CREATE SCHEMA thingspace_gateway AUTHORIZATION gateway";
    server.psql_in("journal", schema).await.unwrap();
    let journal = open(&options).await.unwrap();
    assert_eq!(journal.store_callback(callback("one")).await.unwrap(), new_at(1));
}
