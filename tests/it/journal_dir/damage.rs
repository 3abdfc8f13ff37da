//! A journal that has lost some of what was on it is refused, and goes on once it is restored.

use std::{fs, path::Path, process::Stdio};

use tonic::Code;

use super::{assert_journal_complete, copy, fill_journal, journal, setup};
use crate::support::{
    gateway::{Setup, TestDir},
    requests::{Watch, change_esim, esim, get_by_key, resume, until_caught_up, watch_change},
    thingspace::{CallKind, FakeThingSpace},
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
    ("a log that is garbage behind its header", |dir| {
        overwrite(dir, LOG, 32)
    }),
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
    ("a database that is garbage", |dir| {
        overwrite(dir, DATABASE, 0)
    }),
    ("no marker", |dir| remove(dir, MARKER)),
    ("a marker that is garbage", |dir| overwrite(dir, MARKER, 0)),
];

/// Runs `journal accept-loss`; its exit code and what it says.
async fn accept_loss(directory: &TestDir) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
    command.args(["journal", "accept-loss"]).env_clear();
    command.arg(format!("--journal.dir={}", journal(directory).display()));
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs");
    let output_bytes = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(output_bytes).expect("text"),
    )
}

async fn assert_refused(setup: &Setup, damage: &str) {
    let (code, log) = setup.refused().await;
    assert_eq!(code, Some(78), "{damage}: {log}");
    assert!(log.contains("journal accept-loss"), "{damage}: {log}");
    assert!(log.contains("Restore"), "{damage}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_its_database_or_log_is_rejected_until_restored() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace, &directory);
    let gateway = setup.start().await;
    let made = fill_journal(&gateway).await;
    gateway.kill().await;
    let (journal, backup) = (journal(&directory), directory.join("backup"));
    copy(&journal, &backup);
    for (damage, do_it) in DAMAGES {
        do_it(&journal);
        assert_refused(&setup, damage).await;
        // Nothing that could still be read is gone.
        let left = fs::read(journal.join(LOG)).unwrap_or_default();
        assert!(damage.contains("log") || left == fs::read(backup.join(LOG)).unwrap());
        fs::remove_dir_all(&journal).expect("it was there");
        copy(&backup, &journal);
    }
    let gateway = setup.start().await;
    assert_journal_complete(&mut gateway.client().await, &made, &thingspace).await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    // After an orderly end all is in the database.
    for (damage, do_it) in DAMAGES_AFTER_AN_END {
        fs::remove_dir_all(&backup).expect("it was there");
        copy(&journal, &backup);
        do_it(&journal);
        assert_refused(&setup, damage).await;
        fs::remove_dir_all(&journal).expect("it was there");
        copy(&backup, &journal);
    }
    // A copy from before.
    let gateway = setup.start().await;
    change_esim(&mut gateway.client().await, esim("later", [9])).await;
    assert_eq!(gateway.terminate().await.0, Some(0));
    fs::copy(backup.join(DATABASE), journal.join(DATABASE)).expect("a copy");
    assert_refused(&setup, "an old copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_post_has_left_is_missed_however_soon_the_log_is_lost() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace, &directory);
    // The database is complete up to a point, and everything later is in the log.
    let gateway = setup.start().await;
    fill_journal(&gateway).await;
    assert_eq!(gateway.terminate().await.0, Some(0));
    let gateway = setup.start().await;
    let mut held = thingspace.hold(CallKind::Change);
    let mut client = gateway.client().await;
    let calling = tokio::spawn(async move { client.change_esim_plan(esim("sent", [9])).await });
    held.arrived().await;
    gateway.kill().await;
    assert!(calling.await.expect("a call").is_err());
    overwrite(&journal(&directory), LOG, 0);
    assert_refused(&setup, "a log that is garbage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_loss_starts_a_new_epoch_with_the_remaining_data() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace, &directory);
    let gateway = setup.start().await;
    let made = fill_journal(&gateway).await;
    let (code, output) = accept_loss(&directory).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("another process is using it"), "{output}");
    let mut client = gateway.client().await;
    let story = Watch::open(&mut client, until_caught_up(watch_change(&made[0]))).await;
    let token = story.read_to_end().await.last_token().to_owned();
    assert_eq!(gateway.terminate().await.0, Some(0));
    let (code, output) = accept_loss(&directory).await;
    assert_eq!(code, Some(1));
    assert!(output.contains("nothing is missing"), "{output}");

    let gateway = setup.start().await;
    change_esim(&mut gateway.client().await, esim("lost", [9])).await;
    gateway.kill().await;
    overwrite(&journal(&directory), LOG, 0);
    assert_refused(&setup, "a log that is garbage").await;
    let (code, output) = accept_loss(&directory).await;
    assert_eq!(code, Some(0), "{output}");

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    assert_journal_complete(&mut client, &made, &thingspace).await;
    let lost = get_by_key(&mut client, "lost").await;
    assert_eq!(lost.unwrap_err().code(), Code::NotFound);
    let refused = Watch::try_open(&mut client, resume(&token)).await;
    assert_eq!(refused.err().expect("no stream").code(), Code::OutOfRange);
    assert_eq!(gateway.terminate().await.0, Some(0));
    // And it is a journal as any other.
    let gateway = setup.start().await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    // Nothing at all is left: what is unreadable is kept beside it.
    overwrite(&journal(&directory), DATABASE, 0);
    assert_refused(&setup, "a database that is garbage").await;
    let (code, output) = accept_loss(&directory).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(journal(&directory).join("journal.db.damaged-1").is_file());
    let gateway = setup.start().await;
    assert_eq!(gateway.terminate().await.0, Some(0));
}
