use std::{fs::File, future::Future, pin::Pin, sync::Arc, time::Duration};

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::{task::spawn_blocking, time::sleep};

use crate::journal::sqlite::*;
use crate::{
    callbacks::payload,
    domain::{
        clock::Timestamp,
        identifier::DeviceId,
        newtypes::{AccountName, ChangeId},
    },
    journal::{
        ChangeFilter, CheckReport, Intent, Journal, NewResult, Origin, ReceivedCallback, Stored,
        conformance::{self, Engine},
        sql::tables::changes::MAX_DEVICE_LOOKUPS,
        sqlite::{directory::LOCK, marker::Marker},
        transfer::TimeLimit,
    },
    operations::testing::{esim, iccid},
    telemetry::Instruments,
};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions {
            dir: self.0.path().join("made/when/missing"),
            origin: Origin::sandbox(),
            allow_network_filesystem: false,
            instruments: Instruments::noop(),
        }
    }
}

impl Engine for Directory {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        let journal: Arc<dyn Journal> = open(&self.options()).unwrap();
        Box::pin(async { journal })
    }

    fn check(&self) -> Pin<Box<dyn Future<Output = CheckReport> + Send + '_>> {
        let limit = TimeLimit::start(Duration::from_secs(60));
        let report = transfer::check(&self.options().dir, false, limit).unwrap();
        Box::pin(async { report })
    }
}

conformance::tests!(Directory::new());

#[tokio::test]
async fn a_second_process_and_another_schema_version_are_rejected() {
    let directory = Directory::new();
    let first = open(&directory.options()).unwrap();
    let second = open(&directory.options());
    assert!(matches!(second, Err(JournalOpenError { failure: OpenFailure::Locked, .. })));
    first.close().await;
    drop(first);

    let path = directory.options().dir.join("journal.db");
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let error = open(&directory.options()).err().unwrap();
    assert!(error.to_string().contains("schema version 1"), "{error}");
    assert!(error.failure.is_final());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_a_process_that_ends() {
    let directory = Directory::new();
    open(&directory.options()).unwrap().close().await;
    // The lock of another process.
    let lock = File::open(directory.options().dir.join(LOCK)).unwrap();
    lock.lock().unwrap();
    let options = directory.options();
    let starting = spawn_blocking(move || open(&options).map(drop));
    sleep(Duration::from_millis(100)).await;
    drop(lock);
    starting.await.unwrap().unwrap();
}

#[tokio::test]
async fn each_journal_has_its_own_epoch_and_fingerprints_and_keeps_them() {
    let (one, other) = (Directory::new(), Directory::new());
    let first = open(&one.options()).unwrap();
    let (epoch, fingerprint) = (first.epoch(), first.fingerprint(b"content"));
    first.close().await;
    drop(first);
    let again = open(&one.options()).unwrap();
    assert_eq!((again.epoch(), again.fingerprint(b"content")), (epoch, fingerprint));
    let other = open(&other.options()).unwrap();
    assert_ne!(other.epoch(), epoch);
    assert_ne!(other.fingerprint(b"content"), fingerprint);
}

#[tokio::test]
async fn accepting_a_loss_changes_the_epoch_and_reuses_no_position() {
    let callback = |body: &str| ReceivedCallback {
        callback: payload::parse(body.as_bytes()).unwrap(),
        account: None,
        service: None,
        receive_time: Timestamp::from_micros(1),
        forwarding: None,
    };
    let directory = Directory::new();
    let options = directory.options();
    let journal = open(&options).unwrap();
    let epoch = journal.epoch();
    let first = journal.store_callback(callback(r#"{"requestId":"first"}"#));
    assert_eq!(first.await.unwrap(), new_at(1));
    journal.close().await;
    drop(journal);

    let ahead = Marker { epoch, position: 40 };
    marker::create(&options.dir, ahead).unwrap();
    let damage = match open(&options) {
        Err(JournalOpenError { failure: OpenFailure::Damaged(damage), .. }) => damage,
        _ => panic!("the loss is not detected"),
    };
    let behind = Damage::Behind { database: 1, marker: 40 };
    assert_eq!(damage, behind);
    let accepted = accept_loss(&options.dir, false, &[]).unwrap();
    let expected = AcceptedLoss { database_position: 1, marker_position: Some(40) };
    assert_eq!(accepted, Some(expected));
    // A command that was interrupted before it wrote the marker reports the same loss when it is repeated.
    marker::create(&options.dir, ahead).unwrap();
    assert_eq!(accept_loss(&options.dir, false, &[]).unwrap(), Some(expected));
    let journal = open(&options).unwrap();
    assert_ne!(journal.epoch(), epoch);
    let second = journal.store_callback(callback(r#"{"requestId":"second"}"#));
    assert_eq!(second.await.unwrap(), new_at(41));
    journal.close().await;
}

fn new_at(position: u64) -> Stored {
    Stored::New(NewResult { position, change: None })
}

#[tokio::test]
async fn a_page_looks_for_a_device_in_a_bounded_number_of_large_changes() {
    let directory = Directory::new();
    let journal = open(&directory.options()).unwrap();
    let mut made = Vec::new();
    for (key, numbers) in [("small", 90..91), ("large", 0..20)] {
        let (request, now) = (esim(key, numbers), Timestamp::from_micros(1));
        let change = request.to_change(ChangeId::new(now), now);
        made.push(change.change_id);
        let fingerprint = journal.fingerprint(&request.fingerprint_input());
        let devices = request.devices.clone();
        journal.claim(Intent { change, fingerprint, devices, dispatch: None }).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    // Copies of the large change, which has position 2.
    let mut database = Connection::open(directory.options().dir.join("journal.db")).unwrap();
    let transaction = database.transaction().unwrap();
    let copies = i64::try_from(MAX_DEVICE_LOOKUPS).unwrap() + 9;
    for id in 3..3 + copies {
        transaction
            .execute(
                "INSERT INTO change (id, change_id, account, fingerprint, state, update_time, record,
                   status, device_states, device_count, key_count, owner)
                 SELECT ?1, randomblob(16), account, fingerprint, state, update_time, record,
                   status, device_states, device_count, key_count, owner FROM change WHERE id = 2",
                [id],
            )
            .unwrap();
        for (table, column) in [("device_block", "devices"), ("key_part", "keys")] {
            let copy = format!(
                "INSERT INTO {table} (id, {column})
                 SELECT id + ((?1 - 2) << 20), {column} FROM {table} WHERE id >> 20 = 2"
            );
            transaction.execute(&copy, [id]).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(database);

    let journal = open(&directory.options()).unwrap();
    let find = async |number: usize, account: &str, limit, after| {
        let device = Some(DeviceId::new("iccid".parse().unwrap(), iccid(number)).unwrap());
        let account = Some(AccountName::parse(account).unwrap());
        let filter = ChangeFilter { device, account, limit, after, ..ChangeFilter::default() };
        let page = journal.changes(filter).await.unwrap();
        let found: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        (found, page.next)
    };
    const ACCOUNT: &str = "0000123456-00001";
    let (found, next) = find(90, ACCOUNT, 10, None).await;
    assert_eq!((found, next), (vec![], Some(12)));
    assert_eq!(find(90, ACCOUNT, 10, next).await, (vec![made[0]], None));
    let (found, next) = find(19, ACCOUNT, 3, Some(4)).await;
    assert_eq!((found.len(), found.last(), next), (2, Some(&made[1]), None));
    assert_eq!(find(19, "0000999999-00001", 10, None).await, (vec![], None));
    journal.close().await;
}
