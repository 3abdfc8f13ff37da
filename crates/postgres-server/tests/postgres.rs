//! Real servers of both versions.

#![allow(clippy::expect_used, reason = "a test fails by a panic")]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use thingspace_postgres_server::{Options, Proxy, Server, StandbyOptions, Version};
use tokio::{task, time::timeout};

const TEST_TIMEOUT: Duration = Duration::from_secs(120);

async fn start(options: Options) -> Server {
    Server::start_new(options).await.expect("the server starts")
}

async fn psql(server: &Server, sql: &str) -> String {
    server.psql(sql).await.expect("the statements succeed").trim().to_owned()
}

#[tokio::test]
async fn a_killed_postgres_server_keeps_committed_rows() {
    for version in Version::ALL {
        let server = start(Options::new(version)).await;
        let port = server.port();
        psql(&server, "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)").await;
        server.kill().await.expect("the server is killed");
        assert_eq!(server.pid(), None);
        server.psql("SELECT 1").await.expect_err("no server");
        server.start().await.expect("the server starts again");
        assert_eq!(server.port(), port);
        assert_eq!(psql(&server, "SELECT count(*) FROM t").await, "2");
        assert!(server.log().contains("database system was not properly shut down"));
        server.stop_immediate().await.expect("the server stops");
        server.start().await.expect("the server starts again");
        server.stop_fast().await.expect("the server stops");
        server.start().await.expect("the server starts again");
        assert_eq!(psql(&server, "SELECT count(*) FROM t").await, "2");
    }
}

#[tokio::test]
async fn a_dropped_postgres_server_leaves_nothing_behind() {
    let server = start(Options::new(Version::Debian)).await;
    let directory = server.socket_dir().to_owned();
    let pid = server.pid().expect("a process");
    drop(server);
    assert!(!directory.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    let server = start(Options::new(Version::Debian)).await;
    server.kill().await.expect("the server is killed");
    let status = std::fs::read_to_string(server.data_dir().join("postmaster.pid")).expect("status");
    let memory = status.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
    let memory = memory.expect("the id of shared memory").to_owned();
    assert!(shared_memory().contains(&memory));
    drop(server);
    assert!(!shared_memory().contains(&memory));
}

/// The ids of all shared memory.
fn shared_memory() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").expect("a table");
    table.lines().filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
}

#[tokio::test]
async fn postgres_options_have_an_effect() {
    let options = Options::new(Version::Newest)
        .password("p@ss/word'")
        .setting("work_mem = 5MB")
        .hba("host forbidden all 127.0.0.1/32 reject")
        .without_fsync();
    let server = start(options).await;
    server.create_database("other").await.expect("a database");
    server.create_database("forbidden").await.expect("a database");
    let shown = server.psql_in("other", "SHOW work_mem; SHOW fsync; SHOW max_connections").await;
    assert_eq!(shown.expect("the password is right"), "5MB\noff\n100\n");
    let rejected = server.psql_in("forbidden", "SELECT 1").await.expect_err("rejected");
    assert!(rejected.to_string().contains("rejects connection"), "{rejected}");
    let url = server.url("other");
    let port = server.port();
    assert_eq!(url, format!("postgresql://postgres:p%40ss%2Fword%27@127.0.0.1:{port}/other"));
    let failed = server.psql("SELECT 1; SELECT nonsense; SELECT 2").await.expect_err("an error");
    assert!(failed.to_string().contains("nonsense"), "{failed}");

    let wrong = psql_with_password(&server, "wrong");
    assert!(wrong.contains("password authentication failed"), "{wrong}");
}

/// Runs Debian's client with another password, and returns its error.
fn psql_with_password(server: &Server, password: &str) -> String {
    let url = format!("postgresql://postgres:{password}@127.0.0.1:{}/postgres", server.port());
    let output = Command::new("psql").args(["-d", &url, "-c", "SELECT 1"]).output();
    String::from_utf8(output.expect("psql runs").stderr).expect("text")
}

#[tokio::test]
async fn a_paused_postgres_server_answers_after_it_has_resumed() {
    let server = start(Options::new(Version::Debian)).await;
    server.pause().await.expect("the server pauses");
    let mut query = Box::pin(server.psql("SELECT 7"));
    // Nothing notifies a test that no answer comes.
    timeout(Duration::from_millis(300), &mut query).await.expect_err("no answer");
    server.resume().await.expect("the server resumes");
    assert_eq!(query.await.expect("an answer"), "7\n");
    // A paused server can be stopped and killed.
    server.pause().await.expect("the server pauses");
    server.stop_fast().await.expect("the server stops");
    server.start().await.expect("the server starts");
    server.pause().await.expect("the server pauses");
    server.kill().await.expect("the server is killed");
    server.start().await.expect("the server starts");
}

#[tokio::test]
async fn a_promoted_synchronous_postgres_standby_has_the_confirmed_commits() {
    for version in Version::ALL {
        let primary = start(Options::new(version).password("secret")).await;
        psql(&primary, "CREATE TABLE t (a int)").await;
        let standby = primary.standby(StandbyOptions::synchronous()).await.expect("a standby");
        psql(&primary, "INSERT INTO t VALUES (1)").await;
        standby.psql("INSERT INTO t VALUES (2)").await.expect_err("read-only");
        primary.kill().await.expect("the primary is killed");
        standby.promote().await.expect("the standby is promoted");
        assert_eq!(psql(&standby, "SELECT count(*) FROM t").await, "1");
        psql(&standby, "INSERT INTO t VALUES (2)").await;

        // The promoted server waits for no standby but its own.
        let next = standby.standby(StandbyOptions::synchronous()).await.expect("a standby");
        psql(&standby, "INSERT INTO t VALUES (3)").await;
        standby.kill().await.expect("the primary is killed");
        next.promote().await.expect("the standby is promoted");
        psql(&next, "INSERT INTO t VALUES (4)").await;
        assert_eq!(psql(&next, "SELECT count(*) FROM t").await, "4");
    }
}

#[tokio::test]
async fn a_promoted_asynchronous_postgres_standby_can_lack_confirmed_commits() {
    let primary = start(Options::new(Version::Newest)).await;
    let standby = primary.standby(StandbyOptions::asynchronous()).await.expect("a standby");
    standby.stop_fast().await.expect("the standby stops");
    psql(&primary, "CREATE TABLE t (a int)").await;
    primary.kill().await.expect("the primary is killed");
    standby.start().await.expect("the standby starts");
    standby.promote().await.expect("the standby is promoted");
    assert_eq!(psql(&standby, "SELECT to_regclass('t')").await, "");
}

#[tokio::test]
async fn postgres_servers_in_parallel_have_ports_of_their_own() {
    let servers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(start(Options::new(Version::Debian).without_fsync())))
        .collect();
    let mut ports = Vec::new();
    let mut running = Vec::new();
    for server in servers {
        let server = server.await.expect("a server");
        assert_eq!(psql(&server, "SHOW port").await, server.port().to_string());
        ports.push(server.port());
        running.push(server);
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
}

/// Set in the process that is killed.
const VICTIM: &str = "THINGSPACE_POSTGRES_TEST_VICTIM";

#[tokio::test]
async fn a_postgres_server_ends_with_the_process_that_started_it() {
    if env::var_os(VICTIM).is_some() {
        let server = start(Options::new(Version::Debian)).await;
        let pid = server.pid().expect("a process");
        println!("\nSERVER {pid} {}", server.socket_dir().display());
        return std::future::pending().await;
    }
    let mut victim = Command::new(env::current_exe().expect("a path"))
        .args(["--exact", "a_postgres_server_ends_with_the_process_that_started_it"])
        .arg("--nocapture")
        .env(VICTIM, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
    let line = lines.find_map(|line| line.ok()?.strip_prefix("SERVER ").map(str::to_owned));
    let line = line.expect("the server starts");
    let (pid, directory) = line.split_once(' ').expect("two words");
    let process = format!("/proc/{pid}");
    assert!(Path::new(&process).exists() && Path::new(directory).exists());
    victim.kill().expect("the process is killed");
    victim.wait().expect("the process ends");
    let gone = async {
        while is_running(&process) || Path::new(directory).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TEST_TIMEOUT, gone).await.expect("the server ends and its directory is removed");
}

fn is_running(process: &str) -> bool {
    let mut stat = String::new();
    let read = std::fs::File::open(format!("{process}/stat"))
        .and_then(|mut f| f.read_to_string(&mut stat));
    read.is_ok() && !stat.contains(") Z ")
}

#[tokio::test]
async fn a_proxy_cuts_a_postgres_client_off_after_its_commit() {
    let server = start(Options::new(Version::Debian)).await;
    psql(&server, "CREATE TABLE t (a int)").await;
    let proxy = Proxy::start(server.addr()).await.expect("a proxy");
    let insert = |row: u32| {
        let mut command = psql_through(&proxy);
        command.args(["-c", &format!("BEGIN; INSERT INTO t VALUES ({row}); COMMIT")]);
        async move {
            let run = task::spawn_blocking(move || command.output().expect("psql runs"));
            run.await.expect("psql ends").status.success()
        }
    };
    assert!(insert(1).await);
    proxy.cut_before_reply_to("COMMIT");
    assert!(!insert(2).await);
    proxy.cut_after_bytes(40);
    assert!(!insert(3).await);
    proxy.refuse();
    assert!(!insert(4).await);
    proxy.pass();
    assert!(insert(5).await);
    assert_eq!(psql(&server, "SELECT string_agg(a::text, ',') FROM t").await, "1,2,5");
}

/// Debian's client, connected through a proxy.
fn psql_through(proxy: &Proxy) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-U", "postgres", "-h", "127.0.0.1", "-p"]);
    command.arg(proxy.addr().port().to_string());
    command
}
