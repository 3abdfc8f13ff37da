//! Another process keeps a read transaction open on the live database, such as a `sqlite3` shell.

use std::fs;

use rusqlite::{Connection, OpenFlags};

use crate::{
    pressure::{alone, deliver_at_rate, report},
    support::{
        env::TestEnv,
        requests::{esim, esim_callback},
        wait::eventually,
    },
};

const CALLBACKS: usize = 6_003;
const PER_SECOND: u32 = 400;
const WITHOUT_PRESSURE: usize = 1_000;
/// Maximum growth of the write-ahead log for each callback while it cannot start over.
const MAX_LOG_PER_CALLBACK: u64 = 48 << 10;
/// Length from which the log is truncated when it starts over.
const MAX_KEPT_LOG: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_process_does_not_stall_callbacks_and_the_log_shrinks_afterwards() {
    let _alone = alone().await;
    let env = TestEnv::start().await;
    env.change_as("r-good", esim("good", 0..WITHOUT_PRESSURE + CALLBACKS)).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let good = |first: usize, count: usize| {
        (first..first + count).map(|number| esim_callback("r-good", number).to_string())
    };
    let without_pressure = deliver_at_rate(&env, &url, good(0, WITHOUT_PRESSURE), PER_SECOND).await;

    let database = env.directory.join("journal.db");
    let log = env.directory.join("journal.db-wal");
    let log_length = || fs::metadata(&log).expect("a log").len();
    let count = "SELECT count(*) FROM event";
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = Connection::open_with_flags(&database, flags).expect("a database");
    reader.execute_batch("BEGIN").expect("a transaction");
    let events = |reader: &Connection| -> i64 {
        reader.query_row(count, [], |row| row.get(0)).expect("a count")
    };
    let before = events(&reader);
    let (length_before, good) = (log_length(), good(WITHOUT_PRESSURE, CALLBACKS));
    let under_pressure = deliver_at_rate(&env, &url, good, PER_SECOND).await;
    let growth = log_length() - length_before;
    under_pressure.assert_unaffected(&without_pressure);
    // It was one transaction until now.
    assert_eq!(events(&reader), before);
    reader.execute_batch("COMMIT").expect("a commit");
    // The results, and FINISHED.
    assert_eq!(events(&reader), before + i64::try_from(CALLBACKS + 1).unwrap());
    drop(reader);

    let growth_per_callback = growth / CALLBACKS as u64;
    report(format_args!("the log has grown by {growth_per_callback} bytes for each callback"));
    assert!(growth_per_callback < MAX_LOG_PER_CALLBACK);
    // The log starts over once the transaction has ended.
    let mut numbers = 0..;
    eventually("the log shrinks", async || {
        let callback = esim_callback("r-other", numbers.next().unwrap());
        env.deliver("DeviceProfileService", &callback).await;
        log_length() <= MAX_KEPT_LOG
    })
    .await;
}
