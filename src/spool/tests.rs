use std::{collections::HashMap, fs, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use parking_lot::Mutex;
use proptest::prelude::*;
use prost::Message as _;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, advance, sleep},
};

use crate::{
    callbacks::payload,
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService, RequestId},
    },
    journal::{
        Cursor, EventQuery, ForwardOptions, Journal, JournalError, Origin, ReceivedCallback,
        Result, WatchTarget,
        sqlite::{self, OpenFailure, SqliteOptions},
        stub_journal::{StoreStep, StubJournal},
    },
    spool::{database::database_path, record, *},
    telemetry::Instruments,
    testing::StoppedClock,
};

const MIB: u64 = 1 << 20;

/// Returns a callback of a request. Different numbers have different contents.
fn callback(request: &str, number: usize) -> ReceivedCallback {
    callback_with(request, number, "")
}

fn callback_with(request: &str, number: usize, note: &str) -> ReceivedCallback {
    let body = format!(
        r#"{{"username":"planted-user","password":"planted-password","requestId":"{request}",
            "deviceIds":[{{"id":"{number:015}","kind":"imei"}}],"status":"SUCCESS","note":"{note}"}}"#
    );
    ReceivedCallback {
        callback: payload::parse(body.as_bytes()).unwrap(),
        account: Some(AccountName::parse("0000123456-00001").unwrap()),
        service: Some(CallbackService::parse("CarrierService").unwrap()),
        receive_time: Timestamp::from_micros(1_700_000_000_000_000),
        forwarding: Some(ForwardOptions { max_waiting: 7, now: Timestamp::from_micros(9) }),
    }
}

fn number(received: &ReceivedCallback) -> usize {
    received.callback.result.device_ids[0].id.parse().unwrap()
}

fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions {
        dir: dir.join("made/when/missing"),
        max_bytes: 64 * MIB,
        origin: Origin::sandbox(),
        allow_network_filesystem: false,
    }
}

struct Fixture {
    directory: TempDir,
    journal: Arc<StubJournal>,
    spool: Arc<Spool>,
    mover: JoinHandle<()>,
}

impl Fixture {
    fn start(step: StoreStep) -> Self {
        Self::with_options(step, |_| {})
    }

    fn with_options(step: StoreStep, modify: impl FnOnce(&mut SpoolOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = Arc::new(StubJournal::with_step(step));
        let mut options = options(directory.path());
        modify(&mut options);
        let spool = Spool::open(&options, Arc::<StubJournal>::clone(&journal)).unwrap();
        let mover = tokio::spawn(Arc::clone(&spool).run());
        Self { directory, journal, spool, mover }
    }

    fn away() -> Self {
        Self::start(StoreStep::Fail(StubJournal::unavailable()))
    }

    async fn store(&self, received: ReceivedCallback) -> Result<Appended> {
        store(&self.spool, received).await
    }

    /// The journal answers again. Waits until it has all spooled callbacks.
    async fn return_and_move(&self) {
        self.journal.set_step(StoreStep::Store);
        self.spool.drained().await;
    }

    fn stored(&self) -> Vec<usize> {
        self.journal.stored.lock().iter().map(number).collect()
    }

    fn database(&self) -> Connection {
        Connection::open(database_path(&options(self.directory.path()).dir)).unwrap()
    }

    /// Stops the mover and closes the spool.
    async fn stop(self) -> (TempDir, Arc<StubJournal>) {
        self.mover.abort();
        let _ = self.mover.await;
        self.spool.close().await;
        (self.directory, self.journal)
    }
}

async fn store(spool: &Spool, received: ReceivedCallback) -> Result<Appended> {
    spool.store(received, Instant::now() + Duration::from_millis(3_250)).await
}

/// Waits for a condition, in real time.
async fn eventually(is_reached: impl Fn() -> bool) {
    while !is_reached() {
        sleep(Duration::from_millis(5)).await;
    }
}

// === Records ===

#[test]
fn a_record_has_everything_but_the_credentials() {
    let received = callback("request", 1);
    assert!(received.callback.password.is_some());
    let record = record::encode(&received);
    assert!(!record.windows(7).any(|bytes| bytes == b"planted"));
    let decoded = record::decode(&record).unwrap();
    assert_eq!(decoded.callback.result, received.callback.result);
    assert_eq!(decoded.callback.digest, received.callback.digest);
    assert_eq!(decoded.callback.raw_json, received.callback.raw_json);
    assert!(decoded.callback.username.is_none() && decoded.callback.password.is_none());
    assert_eq!(
        (decoded.account, decoded.service, decoded.receive_time),
        (received.account, received.service, received.receive_time)
    );
    assert_eq!(format!("{:?}", decoded.forwarding), format!("{:?}", received.forwarding));
}

#[test]
fn a_record_of_a_later_version_is_decoded_and_a_damaged_one_is_not() {
    let mut record = record::encode(&callback("request", 1));
    // A field that this version does not know.
    prost::encoding::string::encode(99, &"new".to_owned(), &mut record);
    assert!(record::decode(&record).is_ok());
    record.truncate(record.len() - 1);
    assert_eq!(record::decode(&record).unwrap_err().to_string(), "its record cannot be decoded");
    assert_eq!(record::decode(&[]).unwrap_err().to_string(), "its result cannot be decoded");
    let empty = ().encode_to_vec();
    assert!(record::decode(&empty).is_err());
}

// === Spooling ===

#[tokio::test(start_paused = true)]
async fn without_a_failure_nothing_is_spooled() {
    let fixture = Fixture::start(StoreStep::Store);
    assert!(matches!(fixture.store(callback("a", 1)).await, Ok(Appended::Stored(_))));
    assert_eq!(fixture.spool.append_commits(), 0);
    assert_eq!(fixture.spool.stats().callbacks, 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_journal_is_away_callbacks_are_spooled_and_moved_when_it_returns() {
    for step in [
        StoreStep::Fail(StubJournal::unavailable()),
        StoreStep::Fail(JournalError::Overloaded),
        StoreStep::StoreAndFail(StubJournal::unavailable()),
        StoreStep::StoreAndFail(JournalError::MayBeStored("cut off".to_owned())),
        StoreStep::Hang,
        StoreStep::StoreAndHang,
    ] {
        let fixture = Fixture::start(step);
        for number in 0..5 {
            assert_eq!(fixture.store(callback("a", number)).await.unwrap(), Appended::Spooled);
        }
        let stats = fixture.spool.stats();
        assert_eq!((stats.callbacks, stats.unreadable), (5, 0));
        assert_eq!(stats.oldest, Some(callback("a", 0).receive_time));
        fixture.return_and_move().await;
        assert_eq!(fixture.stored(), [0, 1, 2, 3, 4]);
        assert!(matches!(fixture.store(callback("a", 5)).await, Ok(Appended::Stored(_))));
        assert_eq!((fixture.spool.stats().callbacks, fixture.spool.stats().oldest), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_whose_wait_is_too_long_gets_no_direct_append() {
    let directory = tempfile::tempdir().unwrap();
    let journal = StubJournal::with_step(StoreStep::Store);
    let journal = Arc::new(StubJournal { wait: Duration::from_secs(9), ..journal });
    let observed = Arc::<StubJournal>::clone(&journal);
    let spool = Spool::open(&options(directory.path()), journal).unwrap();
    assert_eq!(store(&spool, callback("a", 1)).await.unwrap(), Appended::Spooled);
    assert_eq!(observed.stored.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn callbacks_that_overlap_when_the_journal_goes_away_are_moved_in_the_order_of_arrival() {
    let fixture = Fixture::start(StoreStep::Hang);
    let mut calls = 0;
    *fixture.journal.script.lock() = Box::new(move |_| {
        calls += 1;
        if calls <= 2 { StoreStep::Hang } else { StoreStep::Store }
    });
    let clock = StoppedClock::new();
    let send = |number| {
        let spool = Arc::clone(&fixture.spool);
        tokio::spawn(async move { store(&spool, callback("a", number)).await })
    };
    let first = send(1);
    fixture.journal.store_called.notified().await;
    advance(Duration::from_millis(1_500)).await;
    let second = send(2);
    fixture.journal.store_called.notified().await;
    advance(Duration::from_millis(500)).await;
    assert_eq!(first.await.unwrap().unwrap(), Appended::Spooled);
    // The second one still waits for the journal, which would store the others.
    let third = send(3);
    assert_eq!(third.await.unwrap().unwrap(), Appended::Spooled);
    for _ in 0..10 {
        assert_eq!(fixture.spool.read(9).await.unwrap().len(), 2);
        assert_eq!(fixture.stored(), [0; 0]);
    }
    advance(Duration::from_millis(1_500)).await;
    assert_eq!(second.await.unwrap().unwrap(), Appended::Spooled);
    drop(clock);
    fixture.spool.drained().await;
    assert_eq!(fixture.stored(), [1, 2, 3]);
}

#[tokio::test]
async fn appends_of_many_callers_share_their_commits() {
    let fixture = Fixture::away();
    assert_eq!(fixture.store(callback("first", 0)).await.unwrap(), Appended::Spooled);
    let before = fixture.spool.append_commits();
    let stores = (0..256).map(|number| fixture.store(callback(&format!("r{number}"), number)));
    assert!(join_all(stores).await.into_iter().all(|stored| stored.unwrap() == Appended::Spooled));
    let commits = fixture.spool.append_commits() - before;
    assert!(commits < 128, "{commits}");
    fixture.return_and_move().await;
    assert_eq!(fixture.stored().len(), 257);
}

// === Order ===

/// Sends callbacks of three requests while the journal fails and returns at random. Checks that the journal has
/// each acknowledged callback once, in the order of arrival.
async fn check_order(seed: u64, callers: usize) {
    const CALLBACKS: usize = 12;
    let mut random = fastrand::Rng::with_seed(seed);
    let fixture = Fixture::start(StoreStep::Store);
    let is_away = Arc::new(Mutex::new(false));
    let (away, mut steps) = (Arc::clone(&is_away), random.fork());
    *fixture.journal.script.lock() = Box::new(move |_| {
        let unavailable = StubJournal::unavailable();
        match (*away.lock(), steps.u8(..20)) {
            (false, 0) | (true, 0..13) => StoreStep::Fail(unavailable),
            (true, 13..15) => StoreStep::Hang,
            // Overlapping callbacks have no order if the journal stores one of them.
            (false, 1) | (true, 15..18) if callers == 1 => StoreStep::StoreAndFail(unavailable),
            (true, 18..) if callers == 1 => StoreStep::StoreAndHang,
            (false, _) => StoreStep::Store,
            (true, _) => StoreStep::Fail(unavailable),
        }
    });
    let mut delays = random.fork();
    let outages = async {
        for _ in 0..12 {
            let delay = Duration::from_millis(delays.u64(..1_500));
            sleep(delay).await;
            let mut is_away = is_away.lock();
            *is_away = !*is_away;
        }
    };
    // The number of the callback that arrived, and of those that were answered before. In the order of arrival.
    let arrivals = Mutex::new(HashMap::<usize, Vec<(usize, Vec<usize>, Option<Appended>)>>::new());
    let senders = (0..3 * callers).map(|sender| {
        let request = sender % 3;
        let (fixture, arrivals, mut delays) = (&fixture, &arrivals, random.fork());
        async move {
            for number in (0..CALLBACKS).map(|number| sender * CALLBACKS + number) {
                sleep(Duration::from_millis(delays.u64(..600))).await;
                let index = {
                    let mut arrivals = arrivals.lock();
                    let arrived = arrivals.entry(request).or_default();
                    let answered = arrived.iter().filter(|arrival| arrival.2.is_some());
                    let answered = answered.map(|arrival| arrival.0).collect();
                    arrived.push((number, answered, None));
                    arrived.len() - 1
                };
                let received = callback(&format!("request-{request}"), number);
                let appended = fixture.store(received).await.unwrap();
                arrivals.lock().get_mut(&request).unwrap()[index].2 = Some(appended);
            }
        }
    });
    tokio::join!(outages, join_all(senders));
    fixture.return_and_move().await;

    let stored = fixture.stored();
    assert_eq!(stored.len(), 3 * callers * CALLBACKS);
    let position = |number: usize| stored.iter().position(|other| *other == number).unwrap();
    for arrived in arrivals.into_inner().into_values() {
        for (index, (number, answered, appended)) in arrived.iter().enumerate() {
            for (earlier, ..) in &arrived[..index] {
                let may_overtake =
                    !answered.contains(earlier) && matches!(appended, Some(Appended::Stored(_)));
                assert!(may_overtake || position(*earlier) < position(*number));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_arrival_is_kept_whenever_the_journal_fails_and_returns(
        seed in any::<u64>(),
        callers in 1_usize..4,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(check_order(seed, callers));
    }
}

// === Crashes and restarts ===

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn after_a_crash_between_the_move_and_the_delete_the_journal_has_one_event() {
    let directory = tempfile::tempdir().unwrap();
    let options_at = |name: &str| options(&directory.path().join(name));
    let away = Arc::new(StubJournal::with_step(StoreStep::Fail(StubJournal::unavailable())));
    let spool = Spool::open(&options_at("spool"), away).unwrap();
    for number in 0..3 {
        assert_eq!(store(&spool, callback("a", number)).await.unwrap(), Appended::Spooled);
    }
    // The disk as a crash leaves it: the move of the original does not delete from the copy.
    copy_files(&options_at("spool").dir, &options_at("copy").dir);
    drop(spool);
    let journal: Arc<dyn Journal> = sqlite::open(&SqliteOptions {
        dir: directory.path().join("journal"),
        origin: Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    })
    .unwrap();
    for name in ["spool", "copy"] {
        let spool = Spool::open(&options_at(name), journal.clone()).unwrap();
        assert_eq!(spool.stats().callbacks, 3);
        let mover = tokio::spawn(Arc::clone(&spool).run());
        spool.drained().await;
        mover.abort();
    }
    let target = WatchTarget::Request(RequestId::parse("a").unwrap());
    let events = journal.events(target, EventQuery::new(Cursor::START, 100)).await.unwrap().events;
    assert_eq!(events.len(), 3);
    assert_eq!(journal.forward_queue_stats().waiting, 3);
    journal.close().await;
}

#[tokio::test]
async fn a_restart_moves_the_rest_before_it_stores_new_callbacks() {
    let fixture = Fixture::away();
    for number in 0..600 {
        let request = format!("r{}", number % 7);
        let received = callback(&request, number);
        assert_eq!(fixture.store(received).await.unwrap(), Appended::Spooled);
    }
    let (directory, journal) = fixture.stop().await;
    journal.set_step(StoreStep::Store);
    let spool =
        Spool::open(&options(directory.path()), Arc::<StubJournal>::clone(&journal)).unwrap();
    assert_eq!(spool.stats().callbacks, 600);
    // A new callback is the last one, although the journal answers.
    assert_eq!(store(&spool, callback("r0", 600)).await.unwrap(), Appended::Spooled);
    let mover = tokio::spawn(Arc::clone(&spool).run());
    spool.drained().await;
    mover.abort();
    let mut last = HashMap::new();
    for received in journal.stored.lock().iter() {
        let request = received.callback.result.request_id.clone();
        let before = last.insert(request, number(received));
        assert!(before.is_none_or(|before| before < number(received)));
    }
    assert_eq!(journal.stored.lock().len(), 601);
}

#[tokio::test]
async fn one_process_uses_a_spool_and_another_origin_needs_an_empty_one() {
    let fixture = Fixture::away();
    fixture.store(callback("a", 1)).await.unwrap();
    let open = |options: &SpoolOptions| {
        Spool::open(options, Arc::new(StubJournal::with_step(StoreStep::Store)))
    };
    let mut options = options(fixture.directory.path());
    let locked = open(&options).err().unwrap();
    assert!(matches!(locked.failure, SpoolOpenFailure::Open(OpenFailure::Locked)), "{locked}");
    let (_directory, _) = fixture.stop().await;

    options.origin = Origin::from_url(&"https://example.com".parse().unwrap());
    let other = open(&options).err().unwrap();
    assert!(matches!(other.failure, SpoolOpenFailure::OtherOrigin { .. }), "{other}");
    let connection = Connection::open(database_path(&options.dir)).unwrap();
    connection.execute("DELETE FROM callback", []).unwrap();
    drop(open(&options).unwrap());
    options.origin = Origin::sandbox();
    drop(open(&options).unwrap());

    connection.pragma_update(None, "user_version", 9).unwrap();
    let version = open(&options).err().unwrap().to_string();
    assert!(version.contains("schema version 9"), "{version}");
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::away();
    fixture.store(callback("a", 1)).await.unwrap();
    let dir = options(fixture.directory.path()).dir;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    let entries = fs::read_dir(&dir).unwrap();
    let modes: Vec<u32> = entries.map(|entry| mode(&entry.unwrap().path())).collect();
    assert_eq!(modes, vec![0o600; modes.len()]);
}

// === Limits and damage ===

#[tokio::test]
async fn a_full_spool_rejects_callbacks_until_some_are_moved() {
    let fixture =
        Fixture::with_options(StoreStep::Fail(StubJournal::unavailable()), |o| o.max_bytes = MIB);
    let note = "n".repeat(50_000);
    let mut spooled = 0;
    let error = loop {
        match fixture.store(callback_with("a", spooled, &note)).await {
            Ok(Appended::Spooled) => spooled += 1,
            Ok(stored) => panic!("{stored:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Unavailable(_)), "{error}");
    assert!((10..21).contains(&spooled), "{spooled}");
    assert!(fixture.spool.stats().bytes <= MIB);
    let path = database_path(&options(fixture.directory.path()).dir);
    fixture.return_and_move().await;
    assert_eq!(fixture.stored().len(), spooled);
    assert!(fixture.spool.has_room());
    fixture.journal.set_step(StoreStep::Fail(StubJournal::unavailable()));
    let received = callback_with("a", spooled, &note);
    assert_eq!(fixture.store(received).await.unwrap(), Appended::Spooled);
    // The copy of the log at the end is a part of the bound.
    let (_directory, _) = fixture.stop().await;
    assert!(fs::metadata(path).unwrap().len() <= MIB);
}

#[tokio::test]
async fn an_empty_database_returns_its_space() {
    let fixture = Fixture::away();
    let note = "n".repeat(100_000);
    let stores = (0..60).map(|number| fixture.store(callback_with("a", number, &note)));
    assert!(join_all(stores).await.into_iter().all(|stored| stored.is_ok()));
    assert!(fixture.spool.stats().bytes > 4 * MIB);
    fixture.return_and_move().await;
    let path = database_path(&options(fixture.directory.path()).dir);
    eventually(|| fs::metadata(&path).unwrap().len() < MIB).await;
}

#[tokio::test]
async fn an_unreadable_record_is_kept_aside_and_does_not_block_the_rest() {
    let fixture = Fixture::away();
    for number in 0..4 {
        fixture.store(callback("a", number)).await.unwrap();
    }
    let damage =
        "UPDATE callback SET record = x'ffff' WHERE id = (SELECT min(id) + 1 FROM callback)";
    assert_eq!(fixture.database().execute(damage, []).unwrap(), 1);
    fixture.return_and_move().await;
    assert_eq!(fixture.stored(), [0, 2, 3]);
    eventually(|| fixture.spool.stats().unreadable == 1).await;
    let sql = "SELECT reason || ' ' || hex(record) FROM unreadable";
    let kept: String = fixture.database().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "its record cannot be decoded FFFF");
    let (directory, journal) = fixture.stop().await;
    let spool = Spool::open(&options(directory.path()), journal).unwrap();
    assert_eq!((spool.stats().callbacks, spool.stats().unreadable), (0, 1));
}

#[tokio::test]
async fn a_callback_that_the_journal_rejects_is_kept_aside() {
    let fixture = Fixture::away();
    fixture.store(callback("a", 1)).await.unwrap();
    fixture.store(callback("a", 2)).await.unwrap();
    *fixture.journal.script.lock() = Box::new(|received| match number(received) {
        1 => StoreStep::Fail(JournalError::NoSuchChange),
        _ => StoreStep::Store,
    });
    fixture.spool.drained().await;
    assert_eq!(fixture.stored(), [2]);
    eventually(|| fixture.spool.stats().unreadable == 1).await;
    let direct = fixture.store(callback("a", 1)).await;
    assert!(matches!(direct, Err(JournalError::NoSuchChange)));
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_rejects_callbacks_and_recovers() {
    const TABLES: [&str; 2] = ["callback", "meta"];
    let fixture = Fixture::away();
    let database = fixture.database();
    for table in TABLES {
        let trigger = format!(
            "CREATE TRIGGER fail_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
        );
        database.execute(&trigger, []).unwrap();
    }
    let error = fixture.store(callback("a", 1)).await.unwrap_err();
    assert!(matches!(error, JournalError::Unavailable(_)), "{error}");
    assert!(!fixture.spool.has_room());
    assert_eq!(fixture.spool.stats().callbacks, 0);
    for table in TABLES {
        database.execute(&format!("DROP TRIGGER fail_{table}"), []).unwrap();
    }
    eventually(|| fixture.spool.has_room()).await;
    assert_eq!(fixture.store(callback("a", 1)).await.unwrap(), Appended::Spooled);
    fixture.return_and_move().await;
    assert_eq!(fixture.stored(), [1]);
}

#[tokio::test]
async fn moved_callbacks_that_cannot_be_deleted_block_nothing() {
    let fixture = Fixture::away();
    fixture.store(callback("a", 1)).await.unwrap();
    let database = fixture.database();
    let trigger =
        "CREATE TRIGGER fail BEFORE DELETE ON callback BEGIN SELECT RAISE(ABORT, 'io'); END";
    database.execute(trigger, []).unwrap();
    fixture.journal.set_step(StoreStep::Store);
    eventually(|| fixture.spool.stats().callbacks == 0).await;
    assert!(matches!(fixture.store(callback("a", 2)).await, Ok(Appended::Stored(_))));
    assert_eq!(fixture.stored(), [1, 2]);
    database.execute("DROP TRIGGER fail", []).unwrap();
    let rows = || -> i64 {
        database.query_row("SELECT count(*) FROM callback", [], |row| row.get(0)).unwrap()
    };
    eventually(|| rows() == 0).await;
}
