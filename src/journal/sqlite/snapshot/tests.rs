use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _};

use tokio::task::{spawn_blocking, yield_now};

use super::*;
use crate::journal::{
    conformance::every_row::{accept_change, fill, success_of},
    sqlite::integrity,
    transfer::{TransferError, tests::Directory},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// The content, the mode and the time of the last modification of each file. The shared memory of SQLite has locks of
/// readers, but is not created.
fn files(dir: &Path) -> BTreeMap<String, (Vec<u8>, u32, i64)> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let metadata = entry.metadata().unwrap();
        let is_shared = name == SHARED_MEMORY;
        let content = if is_shared { Vec::new() } else { fs::read(entry.path()).unwrap() };
        let time = if is_shared { 0 } else { metadata.mtime_nsec() };
        (name, (content, metadata.mode(), time))
    };
    fs::read_dir(dir).unwrap().map(file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_check_change_no_file_of_a_journal_in_use_or_stopped() {
    let directory = Directory::new();
    assert!(matches!(directory.back_up(), Err(TransferError::NoJournal)));
    assert!(matches!(directory.check(), Err(TransferError::NoJournal)));
    assert!(!directory.path().exists());

    let journal = directory.open();
    fill(&*journal).await;
    // The checkpoint of an idle journal would change the files.
    let copy = Directory::new();
    let (in_use, checked) = loop {
        let before = files(&directory.path());
        let (in_use, _) = directory.back_up().unwrap();
        let checked = directory.check().unwrap();
        fs::create_dir_all(copy.path()).unwrap();
        for name in [DATABASE, WAL, "journal.marker"] {
            fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
        }
        if files(&directory.path()) == before {
            break (in_use, checked);
        }
    };
    assert!(checked.is_in_use && checked.findings.is_empty(), "{checked:?}");

    // A copy has a write-ahead log and no shared memory, as after a power loss.
    assert!(fs::metadata(copy.path().join(WAL)).unwrap().len() > 0);
    let before = files(&copy.path());
    assert!(copy.back_up().unwrap().0 == in_use);
    let checked = copy.check().unwrap();
    assert!(!checked.is_in_use && checked.findings.is_empty(), "{checked:?}");
    assert_eq!(files(&copy.path()), before);

    journal.close().await;
    drop(journal);
    let before = files(&directory.path());
    assert!(directory.back_up().unwrap().0 == in_use);
    assert!(directory.check().unwrap().findings.is_empty());
    assert_eq!(files(&directory.path()), before);
}

/// The writer does not wait for a backup, and the backup does not see what is stored after its start.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_stores_callbacks_while_a_backup_reads_and_its_log_starts_over_afterwards() {
    let directory = Directory::new();
    let journal = directory.open();
    accept_change(&*journal, "key", "r", 0..10).await;
    for device in 0..5 {
        journal.store_callback(success_of("r", device)).await.unwrap();
    }
    let snapshot = Snapshot::open(&directory.path(), false).unwrap().unwrap();
    assert!(snapshot.is_in_use());
    let transaction = snapshot.begin().unwrap();
    let seen = read_state(&transaction).unwrap().position;
    for device in 5..10 {
        journal.store_callback(success_of("r", device)).await.unwrap();
    }
    let last = journal.kept_range().await.unwrap().last;
    assert!(last > seen);
    assert_eq!(read_state(&transaction).unwrap().position, seen);
    drop(transaction);
    drop(snapshot);
    let (_, report) = directory.back_up().unwrap();
    assert_eq!(report.header.last_position, last);
    journal.close().await;
    assert_eq!(size(&directory.path().join(WAL)).unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_closes_with_a_current_marker_while_another_process_reads_it() {
    let directory = Directory::new();
    let journal = directory.open();
    accept_change(&*journal, "key", "r", 0..10).await;
    let snapshot = Snapshot::open(&directory.path(), false).unwrap().unwrap();
    let transaction = snapshot.begin().unwrap();
    read_state(&transaction).unwrap();
    journal.store_callback(success_of("r", 0)).await.unwrap();
    let last = journal.kept_range().await.unwrap().last;
    journal.close().await;
    drop(journal);
    let MarkerFile::Valid(marker) = marker::load(&directory.path()).unwrap() else { panic!() };
    assert_eq!(marker.position, last);
    assert!(size(&directory.path().join(WAL)).unwrap() > 0, "the reader needs the log");
    drop(transaction);
    drop(snapshot);
    let journal = directory.open();
    assert_eq!(journal.kept_range().await.unwrap().last, last);
    journal.close().await;
}

/// Reads a stopped journal while a gateway starts: the reader gives up, and the gateway waits for it.
async fn assert_reader_gives_way(directory: &Directory) {
    let snapshot = loop {
        // A process that another test starts holds a copy of the lock until it executes its program.
        let snapshot = Snapshot::open(&directory.path(), false).unwrap().unwrap();
        if !snapshot.is_in_use() {
            break snapshot;
        }
    };
    let limits = snapshot.limits(&directory.path(), TimeLimit::start(HOUR), None);
    limits.check().unwrap();
    let dir = directory.path();
    let starting = spawn_blocking(move || integrity::check(&dir, false).map(drop));
    while let Ok(()) = limits.check() {
        yield_now().await;
    }
    drop((limits, snapshot));
    starting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_journal_cannot_be_opened_while_it_is_backed_up() {
    let directory = Directory::new();
    directory.open().close().await;
    assert_reader_gives_way(&directory).await;
}

/// The lock file is created by the first gateway that opens the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_its_lock_file_cannot_be_opened_while_it_is_backed_up() {
    let directory = Directory::new();
    directory.open().close().await;
    fs::remove_file(directory.path().join(LOCK)).unwrap();
    let network = SharedLocks::try_lock(&directory.path(), true);
    assert!(matches!(network, Err(OpenFailure::Unreadable(_))), "{network:?}");
    assert_reader_gives_way(&directory).await;
}

/// A rollback journal is part of the database: without it, a reader would see half of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_transaction_is_not_read() {
    let directory = Directory::new();
    directory.open().close().await;
    fs::write(directory.path().join(ROLLBACK), "pages").unwrap();
    let failure = loop {
        match Snapshot::open(&directory.path(), false) {
            // As above.
            Err(OpenFailure::Unreadable(_)) => {}
            Ok(snapshot) if snapshot.as_ref().is_some_and(Snapshot::is_in_use) => {}
            opened => break opened.err(),
        }
    };
    assert!(matches!(failure, Some(OpenFailure::Interrupted)), "{failure:?}");
}

/// A process that was killed leaves its shared memory. It is not that of a running gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_after_a_kill_is_backed_up_and_checked_with_its_shared_memory() {
    let directory = Directory::new();
    let journal = directory.open();
    accept_change(&*journal, "key", "r", 0..10).await;
    journal.store_callback(success_of("r", 0)).await.unwrap();
    let last = journal.kept_range().await.unwrap().last;
    let copy = Directory::new();
    fs::create_dir_all(copy.path()).unwrap();
    for name in [DATABASE, WAL, SHARED_MEMORY, LOCK, "journal.marker"] {
        fs::copy(directory.path().join(name), copy.path().join(name)).unwrap();
    }
    journal.close().await;
    assert!(size(&copy.path().join(WAL)).unwrap() > 0);
    let before = files(&copy.path());
    let (_, report) = copy.back_up().unwrap();
    assert_eq!(report.header.last_position, last);
    let checked = copy.check().unwrap();
    assert!(!checked.is_in_use && checked.findings.is_empty(), "{checked:?}");
    assert_eq!(files(&copy.path()), before);
    let opened = copy.open();
    assert_eq!(opened.kept_range().await.unwrap().last, last);
    opened.close().await;
}

/// A gateway that starts has locked the journal, and not opened its database yet. A reader does not create files for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_for_a_gateway_that_starts() {
    let directory = Directory::new();
    directory.open().close().await;
    let locks = integrity::check(&directory.path(), false).unwrap();
    let before = files(&directory.path());
    let dir = directory.path();
    let reading =
        spawn_blocking(move || Snapshot::open(&dir, false).map(|opened| opened.is_some()));
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(files(&directory.path()), before);
    drop(locks);
    let journal = directory.open();
    assert!(reading.await.unwrap().unwrap());
    journal.close().await;
}

#[test]
fn a_path_with_special_characters_is_encoded() {
    assert_eq!(encode_path(Path::new("/a b/c?d#e%f/é")), "/a%20b/c%3fd%23e%25f/%c3%a9");
}
