//! A change with an unknown outcome beside many stored results.

use std::time::Duration;

use rusqlite::{Connection, params_from_iter};
use thingspace_gateway::proto::ChangeState;

use crate::{
    pressure::{Deliveries, alone, deliver_at_rate, report},
    support::{
        env::TestEnv,
        requests::{esim, esim_callback},
    },
};

const STORED_CHANGES: usize = 100_000;
/// Devices of each of them, each with one result.
const DEVICES: usize = 3;
const GOOD: usize = 300;
const GOOD_PER_SECOND: u32 = 50;
/// Maximum processor time under pressure, as a multiple of that without.
const MAX_CPU_RATIO: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_does_not_read_300_000_stored_results_for_one_unknown_change() {
    let _alone = alone().await;
    let mut env = TestEnv::start().await;
    env.change_as("r-stored", esim("stored", 0..DEVICES)).await;
    env.deliver_esim("r-stored", 0..DEVICES).await;
    assert_eq!(env.state("stored").await, ChangeState::Finished);
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let results = multiply(&env, STORED_CHANGES);
    assert_eq!(results, (STORED_CHANGES * DEVICES) as i64);
    env.start_again().await;

    let (without_pressure, cpu_without) = measure(&env, 100_000).await;
    env.change_with_lost_response(esim("unknown", [900_000])).await;
    let (under_pressure, cpu_under) = measure(&env, 200_000).await;

    under_pressure.assert_unaffected(&without_pressure);
    report(format_args!("processor time: {cpu_without:?} without, {cpu_under:?} under pressure"));
    assert!(cpu_under < cpu_without * MAX_CPU_RATIO);
}

/// Sends the callbacks of an ordinary change. Returns the processor time of the gateway too.
async fn measure(env: &TestEnv, first: usize) -> (Deliveries, Duration) {
    let request_id = format!("r-{first}");
    env.change_as(&request_id, esim(&request_id, first..first + GOOD)).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let numbers = first..first + GOOD;
    let callbacks = numbers.map(|number| esim_callback(&request_id, number).to_string());
    let before = env.gateway.cpu_time();
    let deliveries = deliver_at_rate(env, &url, callbacks, GOOD_PER_SECOND).await;
    (deliveries, env.gateway.cpu_time() - before)
}

/// Copies the rows of all changes until there are `changes` of them. Returns the number of results.
///
/// A copy has other positions and keys than the original. The identifiers inside its records stay the same,
/// which only a read of the copied change would notice.
fn multiply(env: &TestEnv, changes: usize) -> i64 {
    let mut db = Connection::open(env.directory.join("journal.db")).expect("a database");
    let db = db.transaction().expect("a transaction");
    let last: i64 = db.query_row("SELECT max(position) FROM event", [], |row| row.get(0)).unwrap();
    let tables: Vec<String> = {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'
                   AND name NOT IN ('meta', 'account', 'sqlite_sequence')";
        let mut tables = db.prepare(sql).unwrap();
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    db.execute(
        "CREATE TEMP TABLE original AS SELECT ? AS positions, ? AS copies",
        [last, changes as i64 - 1],
    )
    .unwrap();
    for table in tables {
        let columns: Vec<String> = {
            let mut columns = db.prepare("SELECT name FROM pragma_table_info(?)").unwrap();
            columns.query_map([&table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let values = columns.iter().map(|column| copied(&table, column));
        let (names, values) = (columns.join(", "), values.collect::<Vec<_>>().join(", "));
        let sql = format!(
            "WITH RECURSIVE copy(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copy, original WHERE n < copies)
             INSERT INTO {table} ({names}) SELECT {values} FROM copy, original CROSS JOIN {table}"
        );
        db.execute(&sql, params_from_iter([0; 0])).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let results = db.query_row("SELECT count(*) FROM event WHERE kind > 0", [], |row| row.get(0));
    db.execute("DROP TABLE original", []).unwrap();
    db.commit().expect("a commit");
    results.expect("a count")
}

/// The value of a column in copy `n`.
fn copied(table: &str, column: &str) -> String {
    match (table, column) {
        // Numbers that begin with the position of the change (see `columns::part_id` in the journal).
        ("device_block" | "key_part" | "device_state", "id") => {
            format!("{column} + ((n * positions) << 20)")
        }
        // Positions.
        (
            _,
            "id" | "position" | "stream" | "change" | "request" | "link_position" | "last_result"
            | "decided_by" | "first_result" | "early_request",
        ) => format!("{column} + n * positions"),
        ("change", "change_id") => "randomblob(16)".into(),
        ("device_key", "key") => "randomblob(length(key))".into(),
        ("change", "key") | ("request", "request_id") => format!("{column} || '-' || n"),
        _ => column.into(),
    }
}
