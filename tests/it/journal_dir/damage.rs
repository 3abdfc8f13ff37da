//! A damaged journal is rejected at the start, and works again after it is restored.

use std::{fs, path::Path};

use tonic::Code;

use super::{assert_journal_complete, fill_journal, journal, start};
use crate::support::{
    cli,
    cli::CliOutput,
    env::TestEnv,
    gateway::{GatewayExit, Setup, copy_journal},
    requests::{Watch, esim, parse_error, resume, until_caught_up, watch_change},
    thingspace::CallKind,
};

type DamageCase = (&'static str, fn(&Path));

const DATABASE: &str = "journal.db";
const LOG: &str = "journal.db-wal";
const MARKER: &str = "journal.marker";

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).expect("it was there");
}

fn overwrite(dir: &Path, name: &str, from: usize) {
    let path = dir.join(name);
    let mut bytes = fs::read(&path).expect("it was there");
    bytes[from..].fill(0x5a);
    fs::write(path, bytes).expect("a file");
}

fn empty(dir: &Path, name: &str) {
    fs::write(dir.join(name), []).expect("a file");
}

/// Damage to a directory whose log has not been checkpointed.
const DAMAGES: [DamageCase; 8] = [
    ("no database", |dir| remove(dir, DATABASE)),
    ("an empty database", |dir| empty(dir, DATABASE)),
    ("a log that is garbage", |dir| overwrite(dir, LOG, 0)),
    ("a log that is garbage behind its header", |dir| overwrite(dir, LOG, 32)),
    ("an empty log", |dir| empty(dir, LOG)),
    ("no log", |dir| remove(dir, LOG)),
    ("neither database nor log", |dir| {
        remove(dir, DATABASE);
        remove(dir, LOG);
    }),
    ("a marker that is garbage", |dir| overwrite(dir, MARKER, 0)),
];

/// Damage to a directory whose log was checkpointed by a graceful shutdown.
const DAMAGES_AFTER_AN_END: [DamageCase; 5] = [
    ("no database", |dir| remove(dir, DATABASE)),
    ("an empty database", |dir| empty(dir, DATABASE)),
    ("a database that is garbage", |dir| overwrite(dir, DATABASE, 0)),
    ("no marker", |dir| remove(dir, MARKER)),
    ("a marker that is garbage", |dir| overwrite(dir, MARKER, 0)),
];

/// Runs `journal accept-loss`.
async fn accept_loss(env: &TestEnv) -> CliOutput {
    let dir = format!("--journal.dir={}", journal(&env.directory).display());
    cli::run(&["journal", "accept-loss", &dir], &[]).await
}

async fn assert_rejected(setup: &Setup, damage: &str) {
    let GatewayExit { code, log } = setup.start_error().await;
    assert_eq!(code, Some(78), "{damage}: {log}");
    // Most damage is repaired by a backup, without a loss of what it has.
    let (restore, accept) = (log.find("journal restore"), log.find("journal accept-loss"));
    assert!(restore.is_some() && restore < accept, "{damage}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_database_or_log_is_rejected_until_restored() {
    let mut env = start().await;
    let changes = fill_journal(&env).await;
    env.gateway.kill().await;
    let (journal, backup) = (journal(&env.directory), env.directory.join("backup"));
    copy_journal(&journal, &backup);
    for (damage, inflict) in DAMAGES {
        inflict(&journal);
        assert_rejected(&env.setup, damage).await;
        // A rejected start removes no readable data.
        let left = fs::read(journal.join(LOG)).unwrap_or_default();
        assert!(damage.contains("log") || left == fs::read(backup.join(LOG)).unwrap());
        fs::remove_dir_all(&journal).expect("it was there");
        copy_journal(&backup, &journal);
    }
    env.start_again().await;
    assert_journal_complete(&env, &changes).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    // After a graceful shutdown the database has all data.
    for (damage, inflict) in DAMAGES_AFTER_AN_END {
        fs::remove_dir_all(&backup).expect("it was there");
        copy_journal(&journal, &backup);
        inflict(&journal);
        assert_rejected(&env.setup, damage).await;
        fs::remove_dir_all(&journal).expect("it was there");
        copy_journal(&backup, &journal);
    }
    // An older copy of the database.
    env.start_again().await;
    env.change(esim("later", [9])).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    fs::copy(backup.join(DATABASE), journal.join(DATABASE)).expect("a copy");
    assert_rejected(&env.setup, "an old copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_is_detected_right_after_a_post_was_sent() {
    let mut env = start().await;
    // The database has the first changes, and the log all later ones.
    fill_journal(&env).await;
    env.restart().await;
    let (_held_call, call) = env.start_held_change(CallKind::Change, esim("sent", [9])).await;
    env.gateway.kill().await;
    assert!(call.await.expect("a call").is_err());
    overwrite(&journal(&env.directory), LOG, 0);
    assert_rejected(&env.setup, "a log that is garbage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_loss_starts_a_new_epoch_with_the_remaining_data() {
    let mut env = start().await;
    let changes = fill_journal(&env).await;
    let output = accept_loss(&env).await;
    assert_eq!(output.code, Some(1));
    let text = output.text();
    assert!(text.contains("another process is using it"), "{text}");
    let transcript = env.record(until_caught_up(watch_change(&changes[0]))).await;
    let token = transcript.last_token().to_owned();
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let output = accept_loss(&env).await;
    assert_eq!(output.code, Some(1));
    assert!(output.text().contains("nothing is missing"), "{output:?}");

    env.start_again().await;
    env.change(esim("lost", [9])).await;
    env.gateway.kill().await;
    overwrite(&journal(&env.directory), LOG, 0);
    assert_rejected(&env.setup, "a log that is garbage").await;
    let output = accept_loss(&env).await;
    assert_eq!(output.code, Some(0), "{output:?}");

    env.start_again().await;
    assert_journal_complete(&env, &changes).await;
    // The journal cannot know that ThingSpace has executed the lost change.
    let posts = env.thingspace.posts();
    let paused = env.change_error(esim("lost", [9])).await;
    let expected = (Code::Unavailable, "CHANGES_PAUSED", "LATER", Some("UNKNOWN"));
    assert_eq!(parse_error(&paused).summary(), expected, "{paused:?}");
    assert_eq!(env.thingspace.posts(), posts);
    let lost = env.try_get("lost").await;
    assert_eq!(lost.unwrap_err().code(), Code::NotFound);
    let expired = Watch::try_open(&mut env.client, resume(&token)).await;
    assert_eq!(expired.err().expect("no stream").code(), Code::OutOfRange);
    // The journal works as any other.
    env.restart().await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    // No data is left. The unreadable database is kept beside the new one.
    overwrite(&journal(&env.directory), DATABASE, 0);
    assert_rejected(&env.setup, "a database that is garbage").await;
    let output = accept_loss(&env).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let damaged = journal(&env.directory).join("journal.db.damaged-1");
    assert!(damaged.is_file());
    env.start_again().await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
}
