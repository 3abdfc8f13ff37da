//! The move of a journal to PostgreSQL and back.

use std::{os::unix::fs::PermissionsExt, path::Path};

use thingspace_gateway::proto::ChangeState;
use thingspace_postgres_server::{Options, Server, Version};

use crate::support::{
    cli::{self, CliOutput},
    env::TestEnv,
    gateway::TestDir,
    requests::{deliver, esim, esim_callback, resume, summarize, watch_change},
};

const REQUEST: &str = "8c4f5f7a-94f6-47d0-9b7f-0ecf6f0a2d0c";

/// A server with an empty database, and the URL of it.
async fn start_server() -> (Server, String) {
    let server = Server::start_new(Options::new(Version::Debian)).await.expect("a server");
    server.create_database("journal").await.expect("a database");
    let url = server.url("journal");
    (server, url)
}

async fn journal(command: &str, file: &Path, settings: &[String]) -> CliOutput {
    let mut arguments = vec!["journal", command, file.to_str().expect("text")];
    arguments.extend(settings.iter().map(String::as_str));
    cli::run(&arguments, &[]).await
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
    let with_origin = |settings: &[String]| [settings, &[base_url.clone()]].concat();

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
    assert_eq!(imported.last_line_json(), exported.last_line_json());
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
