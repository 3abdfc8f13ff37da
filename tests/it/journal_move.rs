//! The move of a journal to PostgreSQL and back.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use thingspace_gateway::proto::{ChangeState, gateway_service_client::GatewayServiceClient};
use thingspace_postgres_server::{Options, Version};
use tonic::Code;

use crate::support::{
    cli::{self, CliOutput},
    database::SearchedServer,
    env::TestEnv,
    gateway::TestDir,
    http::{http_get, post},
    requests::{
        deliver, esim, esim_callback, get_by_key, parse_error, resume, send_all, stored_iccids,
        summarize, watch_change,
    },
    wait::{eventually, in_time},
};

const REQUEST: &str = "8c4f5f7a-94f6-47d0-9b7f-0ecf6f0a2d0c";

/// A server with an empty database, and the URL of it.
async fn start_server() -> (SearchedServer, String) {
    let server = SearchedServer::start_new(Options::new(Version::Debian)).await;
    server.create_database("journal").await.expect("a database");
    let url = server.url("journal");
    (server, url)
}

async fn journal(command: &str, file: &Path, settings: &[String]) -> CliOutput {
    let mut arguments = vec!["journal", command, file.to_str().expect("text")];
    arguments.extend(settings.iter().map(String::as_str));
    cli::run(&arguments, &[]).await
}

fn prepare(settings: &[String]) -> Vec<&str> {
    let settings = settings.iter().map(String::as_str);
    ["journal", "import", "--prepare"].into_iter().chain(settings).collect()
}

#[track_caller]
fn assert_succeeded(output: &CliOutput) {
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_tokens_stay_valid_when_a_journal_moves_to_postgres_and_back() {
    let mut env = TestEnv::start().await;
    let (_server, url) = start_server().await;
    let files = TestDir::new();
    let dir = |directory: &TestDir| format!("--journal.dir={}", directory.path().display());
    let base_url = format!("--thingspace.base_url={}", env.thingspace.base_url());
    let embedded = [dir(&env.directory)];
    let postgres = ["--journal.engine=postgres".into(), format!("--journal.url={url}")];
    let with_origin = |settings: &[String]| [settings, std::slice::from_ref(&base_url)].concat();

    let change = env.change_as(REQUEST, esim("key", [1, 2, 3])).await;
    deliver(&env.gateway.callback_url("DeviceProfileService"), &esim_callback(REQUEST, 1)).await;
    let mut watch = env.watch(watch_change(&change)).await;
    let seen = watch.read_until("result 0 SUCCEEDED").await;
    let token = seen.last().expect("an event").resume_token.clone();
    drop(watch);

    // To PostgreSQL.
    let file = files.join("to-postgres");
    let in_use = journal("export", &file, &embedded).await;
    assert_eq!(in_use.code, Some(1), "{in_use:?}");
    assert!(in_use.stderr.contains("another process is using it"), "{in_use:?}");
    assert!(!file.exists());
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let exported = journal("export", &file, &embedded).await;
    assert_succeeded(&exported);
    let mode = file.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = journal("export", &file, &embedded).await;
    assert_eq!(again.code, Some(1), "it replaces no file: {again:?}");
    let elsewhere = [&postgres[..], &["--thingspace.base_url=https://elsewhere.example".into()]];
    let elsewhere = journal("import", &file, &elsewhere.concat()).await;
    assert_eq!(elsewhere.code, Some(78), "{elsewhere:?}");
    let imported = journal("import", &file, &with_origin(&postgres)).await;
    assert_succeeded(&imported);
    let without_journal = |output: &CliOutput| {
        let mut line = output.last_line_json();
        line.as_object_mut().expect("an object").remove("journal").expect("its name");
        line
    };
    assert_eq!(without_journal(&imported), without_journal(&exported));
    let full = journal("import", &file, &with_origin(&postgres)).await;
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.stderr.contains("not empty"), "{full:?}");

    let setup = env.setup.clone();
    env.setup = setup.clone().set("journal.engine", "postgres").set("journal.url", &url);
    env.start_again().await;
    assert_eq!(env.change(esim("key", [1, 2, 3])).await.change_id, change.change_id);
    let mut watch = env.watch(resume(&token)).await;
    deliver(&env.gateway.callback_url("DeviceProfileService"), &esim_callback(REQUEST, 2)).await;
    let seen = watch.read_until("result 1 SUCCEEDED").await;
    let summaries: Vec<String> = seen.iter().map(summarize).collect();
    assert_eq!(summaries, ["opened ACCEPTED", "result 1 SUCCEEDED"]);
    let token = seen.last().expect("an event").resume_token.clone();
    drop(watch);

    // A running gateway is reported.
    let running = journal("export", &files.join("running"), &postgres).await;
    assert_succeeded(&running);
    assert!(running.stderr.contains("warning"), "{running:?}");

    // And back.
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let file = files.join("back");
    let exported = journal("export", &file, &postgres).await;
    assert_succeeded(&exported);
    assert_eq!(exported.stderr, "");
    let back = TestDir::new();
    assert_succeeded(&journal("import", &file, &with_origin(&[dir(&back)])).await);
    env.setup = setup.set("journal.dir", &back.path().to_string_lossy());
    env.start_again().await;
    deliver(&env.gateway.callback_url("DeviceProfileService"), &esim_callback(REQUEST, 3)).await;
    let rest = env.record(resume(&token)).await;
    assert_eq!(rest.summaries(), ["opened FINISHED", "result 2 SUCCEEDED", "finished FINISHED"]);
    assert_eq!(env.state("key").await, ChangeState::Finished);
    assert_eq!(env.thingspace.posts(), 1);
}

/// Returns an address that no process listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// A gateway with a spool that starts during an import answers callbacks with 200. Afterwards, a watch that was open
/// before the move has them in order. `TSGW_TEST_IMPORT_RESULTS` is the number of results in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_arrive_during_an_import_into_postgres_are_spooled_and_not_lost() {
    let count = env::var("TSGW_TEST_IMPORT_RESULTS").ok();
    let count: usize = count.map_or(20, |count| count.parse().expect("a number"));
    let mut env = TestEnv::start().await;
    let (_server, url) = start_server().await;
    let service = "DeviceProfileService";
    for (number, first) in (0..count).step_by(10_000).enumerate() {
        let devices: Vec<usize> = (first..count.min(first + 10_000)).collect();
        let request = format!("{number:08}-94f6-47d0-9b7f-0ecf6f0a2d0c");
        env.change_as(&request, esim(&format!("filler {number}"), devices.clone())).await;
        let callbacks = env.gateway.callback_url(service);
        let sent = send_all(&callbacks, &request, devices.clone(), 16, Arc::default()).await;
        assert_eq!(sent.len(), devices.len());
    }
    let own: Vec<usize> = (count..count + 10_000).collect();
    let change = env.change_as(REQUEST, esim("key", own.iter().copied())).await;
    deliver(&env.gateway.callback_url(service), &esim_callback(REQUEST, own[0])).await;
    let mut watch = env.watch(watch_change(&change)).await;
    let seen = watch.read_until("result 0 SUCCEEDED").await;
    let token = seen.last().expect("an event").resume_token.clone();
    drop(watch);
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let files = TestDir::new();
    let file = files.join("journal");
    let start = tokio::time::Instant::now();
    let embedded = [format!("--journal.dir={}", env.directory.path().display())];
    assert_succeeded(&journal("export", &file, &embedded).await);
    println!("export of {count} results: {:?}", start.elapsed());

    let base_url = format!("--thingspace.base_url={}", env.thingspace.base_url());
    let postgres = ["--journal.engine=postgres".into(), format!("--journal.url={url}"), base_url];
    assert_succeeded(&cli::run(&prepare(&postgres), &[]).await);
    let spool = TestDir::new();
    let (callbacks, grpc, admin) = (free_address(), free_address(), free_address());
    env.setup = env
        .setup
        .clone()
        .set("journal.engine", "postgres")
        .set("journal.url", &url)
        .set("journal.spool_dir", &spool.path().to_string_lossy())
        .set("callbacks.listen", &callbacks.to_string())
        .set("grpc.listen", &grpc.to_string())
        .set("admin.listen", &admin.to_string());
    let setup = env.setup.clone();
    let starting = tokio::spawn(async move { setup.start().await });

    let callbacks = format!("http://{callbacks}/callbacks/{service}");
    eventually("callbacks are received", async || {
        tokio::net::TcpStream::connect(grpc).await.is_ok()
    })
    .await;
    let mut numbers = own.iter().copied().skip(1);
    let mut sent = Vec::new();
    let mut send = async |stored: Option<&str>| {
        let number = numbers.next().expect("enough devices");
        let (status, body) = post(&callbacks, esim_callback(REQUEST, number).to_string()).await;
        assert_eq!(status, 200, "{body}");
        assert!(stored.is_none_or(|stored| body == json!({"stored": stored})), "{body}");
        sent.push(number);
    };
    for _ in 0..50 {
        send(Some("spooled")).await;
    }
    assert_eq!(http_get(&format!("http://{admin}/readyz")).await.status(), 200);
    let mut client = GatewayServiceClient::connect(format!("http://{grpc}")).await.expect("a port");
    let rejected = in_time(get_by_key(&mut client, "key")).await.expect_err("no journal");
    assert_eq!(rejected.code(), Code::Unavailable);
    assert_eq!(parse_error(&rejected).reason, "JOURNAL_UNAVAILABLE");
    drop(client);
    // Also in JSON.
    let path = "thingspace.gateway.v1.GatewayService/GetServerInfo";
    let (status, error) = post(&format!("http://{grpc}/{path}"), "{}").await;
    assert_eq!((status, &error["code"]), (503, &json!("unavailable")), "{error}");

    let start = tokio::time::Instant::now();
    let import = tokio::spawn(async move { journal("import", &file, &postgres).await });
    while !import.is_finished() {
        send(None).await;
    }
    println!("import: {:?}", start.elapsed());
    assert_succeeded(&import.await.expect("it ends"));
    while !starting.is_finished() {
        send(None).await;
    }
    env.gateway = starting.await.expect("it starts");
    env.client = env.gateway.client().await;
    for _ in 0..10 {
        send(None).await;
    }
    println!("callbacks: {}", sent.len());
    let last = format!("result {} SUCCEEDED", sent.len());
    let mut watch = env.watch(resume(&token)).await;
    let seen: Vec<String> = watch.read_until(&last).await.iter().map(summarize).collect();
    let expected = (1..=sent.len()).map(|index| format!("result {index} SUCCEEDED"));
    let expected: Vec<String> = std::iter::once("opened ACCEPTED".into()).chain(expected).collect();
    assert_eq!(seen, expected);
    assert_eq!(env.thingspace.posts(), 1 + count.div_ceil(10_000));
}

/// A gateway with a spool receives callbacks although the database is unavailable at its start, and keeps them when it is
/// stopped before the database is there.
#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_spooled_while_postgres_is_away_at_a_start() {
    let mut env = TestEnv::start().await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let (_server, url) = start_server().await;
    let spool = TestDir::new();
    let callbacks = free_address();
    let away = format!("postgresql://postgres@{}/journal", free_address());
    let setup = env.setup.clone().set("journal.engine", "postgres");
    let setup = setup
        .set("journal.spool_dir", &spool.path().to_string_lossy())
        .set("callbacks.listen", &callbacks.to_string());
    let mut waiting = setup.clone().set("journal.url", &away).command();
    let mut waiting = waiting.spawn().expect("the binary starts");
    eventually("callbacks are received", async || {
        tokio::net::TcpStream::connect(callbacks).await.is_ok()
    })
    .await;
    let callbacks = format!("http://{callbacks}/callbacks/DeviceProfileService");
    for number in 0..3 {
        let stored = post(&callbacks, esim_callback(REQUEST, number).to_string()).await;
        assert_eq!(stored, (200, json!({"stored": "spooled"})));
    }
    let pid = i32::try_from(waiting.id().expect("it runs")).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    assert_eq!(in_time(waiting.wait()).await.expect("waited").code(), Some(1));

    env.setup = setup.set("journal.url", &url);
    env.start_again().await;
    eventually("the journal has the callbacks", async || {
        stored_iccids(&mut env.client, REQUEST).await.len() == 3
    })
    .await;
}
