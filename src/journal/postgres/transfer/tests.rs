use std::{
    env, fs, io,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    domain::{newtypes::ChangeId, state::ChangeState},
    journal::{
        Claim, Intent, Journal, JournalError, ReplicaStatistics,
        conformance::every_row::{read_all, success_of},
        postgres::{
            PostgresOptions, open,
            tests::{create_database, drop_schema, replace_database},
        },
        transfer::tests::{Directory, NOON, NoonClock, check_imported, filled_file, store_results},
    },
    operations::testing::esim,
};

fn database(options: &PostgresOptions) -> TransferDatabase {
    TransferDatabase {
        url: options.url.clone(),
        password: None,
        allow_relaxed_durability: options.allow_relaxed_durability,
    }
}

fn minute() -> TimeLimit {
    TimeLimit::start(Duration::from_secs(60))
}

async fn import_bytes(
    options: &PostgresOptions,
    file: Vec<u8>,
) -> Result<ImportReport, TransferError> {
    let (database, origin) = (database(options), options.origin.clone());
    spawn_blocking(move || import(&database, &origin, Purpose::Move, &mut &*file)).await.unwrap()
}

async fn export_bytes(options: &PostgresOptions) -> Result<(Vec<u8>, ExportReport), TransferError> {
    let database = database(options);
    let export = spawn_blocking(move || {
        let mut file = Vec::new();
        export(&database, &mut file).map(|report| (file, report))
    });
    export.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_moves_to_postgres_and_back_unchanged() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    let missing = export_bytes(&options).await;
    assert!(matches!(missing, Err(TransferError::NoJournal)), "{missing:?}");
    import_bytes(&options, file.clone()).await.unwrap();
    let (again, report) = export_bytes(&options).await.unwrap();
    assert!(again == file, "another export has the same bytes");
    assert_eq!(report.running_gateways, Vec::<String>::new());

    let journal = open(&options).await.unwrap();
    assert_eq!(read_all(&*journal).await, content);
    // A running gateway does not change what an export reads, and is reported.
    let (while_running, report) = export_bytes(&options).await.unwrap();
    assert!(while_running == file);
    assert_eq!(report.running_gateways, [options.replica_name.as_str()]);
    journal.close().await;

    let directory = Directory::new();
    directory.import(&again).unwrap();
    assert!(directory.export() == file);
    check_imported(directory.open(), &content).await;
    check_imported(open(&options).await.unwrap(), &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_an_import_only_while_no_gateway_uses_an_empty_journal() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    let journal = open(&options).await.unwrap();
    let in_use = import_bytes(&options, file.clone()).await;
    let Err(TransferError::InUse(names)) = &in_use else { panic!("{in_use:?}") };
    assert_eq!(*names, options.replica_name);
    journal.close().await;
    // The epoch and the other values of the empty journal are replaced.
    import_bytes(&options, file.clone()).await.unwrap();
    let again = import_bytes(&options, file).await;
    assert!(matches!(again, Err(TransferError::NotEmpty(_))), "{again:?}");
    check_imported(open(&options).await.unwrap(), &content).await;
}

/// A gateway that lost its lease, for example because it was paused, writes nothing into an imported journal: it has the
/// identity of the empty journal before.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_the_journal_before_an_import_into_postgres_writes_nothing() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    let paused = open(&options).await.unwrap();
    loop {
        let connection =
            Connector::new(ConnectionSettings::parse(&options.url, None).unwrap()).unwrap();
        let connection = connection.connect(None).await.unwrap();
        let sql = "UPDATE thingspace_gateway.replica SET lease_until = clock_timestamp()";
        connection.client().batch_execute(sql).await.unwrap();
        match import_bytes(&options, file.clone()).await {
            // It has renewed its lease in between.
            Err(TransferError::InUse(_)) => {}
            imported => break drop(imported.unwrap()),
        }
    }
    for _ in 0..3 {
        let stored = paused.store_callback(success_of("r-foreign", 1)).await;
        assert!(stored.is_err(), "{stored:?}");
        assert!(!paused.is_writable());
    }
    paused.close().await;
    check_imported(open(&options).await.unwrap(), &content).await;
}

/// Claims a new change.
async fn claim(journal: &dyn Journal, key: &str) -> Result<Claim, JournalError> {
    let request = esim(key, [1]);
    let change = request.to_change(ChangeId::new(NOON), NOON);
    let fingerprint = journal.fingerprint(&request.fingerprint_input());
    let devices = request.devices.clone();
    journal.claim(Intent { change, fingerprint, devices, dispatch: None }).await
}

/// Loses the database under a replica that stays open, and fills the one that replaces it from a backup or an export. The
/// replica repeats a call of a change that was lost. It gets no lease, and another replica keeps its own.
async fn replace_under_a_replica(is_restore: bool, keeps_connections: bool) {
    let options = create_database().await;
    let old = open(&options).await.unwrap();
    old.store_callback(success_of("r", 1)).await.unwrap();
    let file = match is_restore {
        false => export_bytes(&options).await.unwrap().0,
        true => {
            let used = database(&options);
            let back_up = move || {
                let (mut file, limit) = (Vec::new(), minute());
                back_up(&used, &NoonClock, limit, &mut file).map(|_| file)
            };
            spawn_blocking(back_up).await.unwrap().unwrap()
        }
    };
    let epoch = old.epoch();
    let lost = claim(&*old, "lost").await;
    assert!(matches!(lost, Ok(Claim::Created(_))), "{lost:?}");

    if keeps_connections {
        drop_schema(&options).await
    } else {
        replace_database(&options).await
    }
    let replica = Arc::clone(&old);
    let calling = tokio::spawn(async move {
        loop {
            match claim(&*replica, "lost").await {
                Err(error) if error.to_string().contains("has replaced the journal") => return,
                Err(_) => {}
                Ok(claim) => panic!("{claim:?}"),
            }
        }
    });
    let (target, origin) = (database(&options), options.origin.clone());
    let restore = move || {
        let purpose = if is_restore {
            Purpose::Restore { updates: &[], allow_unsound: false }
        } else {
            Purpose::Move
        };
        import(&target, &origin, purpose, &mut &*file)
    };
    spawn_blocking(restore).await.unwrap().unwrap();
    let other = PostgresOptions { replica_name: "b".into(), ..options.clone() };
    let new = open(&other).await.unwrap();
    timeout(Duration::from_secs(60), calling).await.unwrap().unwrap();
    for _ in 0..5 {
        let refused = claim(&*old, "lost").await;
        assert!(refused.is_err(), "{refused:?}");
        assert!(!old.is_writable());
    }
    let lease = old.coordination().unwrap().acquire_lease("job", Duration::from_secs(60)).await;
    assert!(lease.is_err(), "{lease:?}");
    assert!(old.stop_reason().is_some());
    assert_eq!(old.epoch(), epoch, "neither its writer nor its follower adopts the epoch");
    old.close().await;
    let statistics = new.statistics().await.unwrap();
    assert_eq!(statistics.replicas, Some(ReplicaStatistics { live: 1, lost: 0 }));
    assert!(new.can_send(new.owner()));
    new.store_callback(success_of("r", 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stays_open_claims_nothing_in_a_restored_database() {
    replace_under_a_replica(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stays_open_claims_nothing_in_a_database_that_a_journal_moved_to() {
    replace_under_a_replica(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_claims_nothing_after_a_restore_that_its_connections_survive() {
    replace_under_a_replica(true, true).await;
    replace_under_a_replica(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_nothing_of_a_damaged_file() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    for damage in [file.len() - 1, file.len() * 3 / 4, file.len() / 2, 50] {
        let mut damaged = file.clone();
        damaged[damage] ^= 1;
        let rejected = import_bytes(&options, damaged).await;
        assert!(matches!(rejected, Err(TransferError::Damaged(_))), "{rejected:?}");
        let rejected = import_bytes(&options, file[..damage].to_vec()).await;
        assert!(matches!(rejected, Err(TransferError::Truncated)), "{rejected:?}");
    }
    // A gateway must not open the empty journal: it would not know the changes of the file.
    let refused = open(&options).await.map(|_| ());
    assert!(matches!(refused, Err(JournalOpenError(OpenFailure::AwaitsImport))), "{refused:?}");
    let used = database(&options);
    spawn_blocking(move || {
        let waits = check(&used, minute());
        assert!(matches!(waits, Err(TransferError::AwaitsImport)), "{waits:?}");
        let limit = minute();
        let waits = back_up(&used, &NoonClock, limit, &mut Vec::new());
        assert!(matches!(waits, Err(TransferError::AwaitsImport)), "{waits:?}");
    })
    .await
    .unwrap();
    import_bytes(&options, file).await.unwrap();
    check_imported(open(&options).await.unwrap(), &content).await;
}

/// A gateway that starts at any moment finds no journal, or one that waits for a file.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_creates_and_reserves_a_journal_in_one_transaction() {
    let options = create_database().await;
    let target = database(&options);
    spawn_blocking(move || prepare(&target)).await.unwrap().unwrap();
    let connector = Connector::new(ConnectionSettings::parse(&options.url, None).unwrap()).unwrap();
    let connection = connector.connect(None).await.unwrap();
    let sql = "SELECT count(*), count(DISTINCT xmin::text) FROM thingspace_gateway.meta
         WHERE name IN ('awaits_import', 'schema_version')";
    let row = connection.client().query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
}

/// A file that waits in the middle until the gate is dropped.
struct HaltedFile {
    file: Vec<u8>,
    /// The number of bytes up to the middle.
    first: usize,
    reached_half: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
}

impl Read for HaltedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.first == 0 {
            let _ = self.reached_half.send(());
            let _ = self.gate.recv();
            self.first = self.file.len();
        }
        let length = buffer.len().min(self.first);
        let rest = self.file.split_off(length);
        let read = std::mem::replace(&mut self.file, rest);
        buffer[..length].copy_from_slice(&read);
        self.first -= length;
        Ok(length)
    }
}

/// A gateway that starts during an import waits for its commit, and then has the imported journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_postgres_waits_for_an_import() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    let (reached_half, half) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let mut halted = HaltedFile { first: file.len() / 2, file, reached_half, gate };
    let (database, origin) = (database(&options), options.origin.clone());
    let import = spawn_blocking(move || import(&database, &origin, Purpose::Move, &mut halted));
    spawn_blocking(move || half.recv()).await.unwrap().unwrap();
    let starting = {
        let options = options.clone();
        tokio::spawn(async move { open(&options).await })
    };
    let waiting = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory%'
                   AND datname = current_database()";
        let connection =
            Connector::new(ConnectionSettings::parse(&options.url, None).unwrap()).unwrap();
        let connection = connection.connect(None).await.unwrap();
        let row = connection.client().query_one(sql, &[]).await.unwrap();
        row.get::<_, i64>(0) > 1
    };
    while !waiting().await {
        assert!(!starting.is_finished());
    }
    drop(go_on);
    import.await.unwrap().unwrap();
    let journal: Arc<dyn Journal> = starting.await.unwrap().unwrap();
    check_imported(journal, &content).await;
}

/// The number of results in `TSGW_TEST_IMPORT_RESULTS`, by default few.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_journal_moves_to_postgres_and_back() {
    let count = env::var("TSGW_TEST_IMPORT_RESULTS").ok();
    let count = count.map_or(2_000, |count| count.parse().unwrap());
    let directory = Directory::new();
    let journal = directory.open();
    store_results(&journal, count).await;
    let kept = journal.kept_range().await.unwrap();
    journal.close().await;
    drop(journal);
    let start = Instant::now();
    let file = directory.export();
    println!("export from SQLite: {:?}, {} bytes", start.elapsed(), file.len());
    let options = create_database().await;
    let start = Instant::now();
    import_bytes(&options, file.clone()).await.unwrap();
    println!("import to PostgreSQL: {:?}", start.elapsed());
    let start = Instant::now();
    let (again, _) = export_bytes(&options).await.unwrap();
    println!("export from PostgreSQL: {:?}", start.elapsed());
    assert!(again == file);
    let back = Directory::new();
    let start = Instant::now();
    back.import(&again).unwrap();
    println!("import to SQLite: {:?}", start.elapsed());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
    for journal in [open(&options).await.unwrap(), back.open()] {
        assert_eq!(journal.kept_range().await.unwrap(), kept);
        journal.close().await;
    }
}

/// A backup of a database that gateways use fills another database and an embedded journal, and a check finds damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_on_postgres_is_backed_up_and_checked_while_a_gateway_uses_it_and_restored() {
    let (file, _) = filled_file().await;
    let options = create_database().await;
    import_bytes(&options, file).await.unwrap();
    let journal = open(&options).await.unwrap();
    let used = database(&options);
    let (backup, report, checked) = spawn_blocking(move || {
        let mut backup = Vec::new();
        let limit = minute();
        let report = back_up(&used, &NoonClock, limit, &mut backup).unwrap();
        (backup, report, check(&used, minute()).unwrap())
    })
    .await
    .unwrap();
    assert_eq!(report.running_gateways, [options.replica_name.as_str()]);
    assert!(checked.is_in_use && checked.findings.is_empty(), "{checked:?}");
    journal.close().await;

    let rejected = import_bytes(&create_database().await, backup.clone()).await;
    assert!(matches!(rejected, Err(TransferError::IsBackup)), "{rejected:?}");
    let other = create_database().await;
    let (target, origin) = (database(&other), other.origin.clone());
    let restored = spawn_blocking(move || {
        let restored = import(
            &target,
            &origin,
            Purpose::Restore { updates: &[], allow_unsound: false },
            &mut &*backup,
        )
        .unwrap();
        let embedded = Directory::new();
        embedded
            .import_for(Purpose::Restore { updates: &[], allow_unsound: false }, &backup)
            .unwrap();
        assert_eq!(embedded.check().unwrap().findings, vec![]);
        let checked = check(&target, minute()).unwrap();
        assert_eq!((checked.findings, &checked.epoch), (vec![], &restored.epoch));
        restored
    })
    .await
    .unwrap();
    assert_ne!(restored.epoch, report.header.epoch);
    let journal = open(&other).await.unwrap();
    assert_eq!(format!("{:016x}", journal.epoch().0), restored.epoch);
    for change in journal.interrupted().await.unwrap() {
        let settled = journal.settle(change, NOON).await.unwrap().unwrap();
        assert_eq!(settled.state, ChangeState::OutcomeUnknown);
    }
    journal.close().await;

    let target = database(&other);
    let findings = spawn_blocking(move || {
        let connection = connect(&target).unwrap();
        let damage = "BEGIN; SET LOCAL search_path = thingspace_gateway;
             DELETE FROM event WHERE position = (SELECT max(position) FROM event); COMMIT";
        connection.driver().block_on(connection.client().batch_execute(damage)).unwrap();
        check(&target, minute()).unwrap().findings
    });
    let findings = findings.await.unwrap();
    let is_found =
        findings.iter().any(|finding| finding.problem.contains("events after the position"));
    assert!(is_found, "{findings:?}");

    let target = database(&other);
    let damage = "UPDATE thingspace_gateway.head SET last_position = last_position - 2;
         DELETE FROM thingspace_gateway.device_state";
    let findings = spawn_blocking(move || {
        let connection = connect(&target).unwrap();
        connection.driver().block_on(connection.client().batch_execute(damage)).unwrap();
        check(&target, minute()).unwrap().findings
    });
    let findings = findings.await.unwrap();
    let problems: Vec<_> = findings.iter().map(|finding| finding.problem.as_str()).collect();
    assert!(
        problems.iter().any(|problem| problem.contains("after the last position")),
        "{problems:?}"
    );
    assert!(problems.iter().any(|problem| problem.contains("counts")), "{problems:?}");
}

/// The server cancels a query that has begun, and no other one begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_and_a_backup_of_postgres_end_at_their_time_limit() {
    let (file, _) = filled_file().await;
    let options = create_database().await;
    import_bytes(&options, file).await.unwrap();
    let used = database(&options);
    spawn_blocking(move || {
        let expired = || TimeLimit::start(Duration::ZERO);
        let connection = connect(&used).unwrap();
        let stream = |limit, sql| {
            let db = PostgresDatabase::begin(&connection, BEGIN_EXPORT);
            let transfer = PostgresTransfer { connection: &connection, db, limit: Some(limit) };
            let ended = transfer.stream(sql, &mut |_| Ok(()));
            connection.driver().block_on(connection.client().batch_execute("ROLLBACK")).unwrap();
            ended
        };
        let sleep = "SELECT pg_sleep(600)";
        let ended = [
            check(&used, expired()).map(drop),
            back_up(&used, &NoonClock, expired(), &mut Vec::new()).map(drop),
            stream(expired(), "SELECT 1"),
            stream(TimeLimit::start(Duration::from_millis(200)), sleep),
        ];
        for ended in ended {
            let Err(TransferError::Io(error)) = ended else { panic!("{ended:?}") };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        stream(minute(), "SELECT 1").unwrap();
    })
    .await
    .unwrap();
}

/// A query of an import has another limit than one of a gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_its_response_timeout() {
    let options = create_database().await;
    let used = database(&options);
    spawn_blocking(move || {
        let wait = |limit, seconds: &str| {
            let connection = connect(&used).unwrap().with_response_timeout(limit);
            let db = PostgresDatabase::begin(&connection, BEGIN_IMPORT);
            let sql = format!("SELECT 1 FROM pg_sleep({seconds})");
            db.as_database().get(&sql, &[], |row| row.get::<i64>(0))
        };
        assert!(wait(Duration::from_millis(1), "1").is_err());
        assert_eq!(wait(Duration::MAX, "0.01").unwrap(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_into_postgres_needs_no_lock_on_tables_of_others() {
    let (file, content) = filled_file().await;
    let options = create_database().await;
    let other = Connector::new(ConnectionSettings::parse(&options.url, None).unwrap()).unwrap();
    let other = other.connect(None).await.unwrap();
    let lock = "BEGIN; LOCK TABLE public.other IN ACCESS EXCLUSIVE MODE";
    // Committed before it is locked: ANALYZE skips a table that it does not see.
    for sql in ["CREATE TABLE public.other (id INTEGER)", lock] {
        other.client().batch_execute(sql).await.unwrap();
    }
    import_bytes(&options, file).await.unwrap();
    let sql = "SELECT count(*) FROM pg_class WHERE relname = 'event' AND reltuples > 0";
    let analyzed = other.client().query_one(sql, &[]).await.unwrap();
    assert_eq!(analyzed.get::<_, i64>(0), 1);
    check_imported(open(&options).await.unwrap(), &content).await;
}
