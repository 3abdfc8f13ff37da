//! Creates the tables, and checks an existing database.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::journal::{
    postgres::{
        connection::Connection, continuity::start_epoch, database::PostgresDatabase,
        dialect::translate_definitions, error::OpenFailure,
    },
    sql::{
        Database, Result,
        tables::{
            meta,
            schema::{TABLES, VERSION},
        },
        value::values,
    },
    transfer::TransferError,
};

/// The schema of all tables. Every transaction makes it the search path.
const SCHEMA: &str = "thingspace_gateway";
/// The oldest supported version of the server, as `server_version_num`.
const OLDEST_SERVER: i64 = 140_000;
/// The advisory lock of a start and of an import.
const LOCK: i64 = 0x7473_6777;
/// Maximum time to wait for another start, or for an import.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
/// Delay between attempts to get the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(250);

/// The tables that only this engine has.
const OWN_TABLES: &str = "
-- The newest position, the counts of the last commit, and the epoch. Each commit locks the row first, so the order of commits is
-- that of their positions.
CREATE TABLE head (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    last_position  INTEGER NOT NULL,
    counts         BLOB NOT NULL,
    epoch          INTEGER NOT NULL
) WITH (fillfactor = 10);

-- The gateway replicas. A change belongs to the replica that sends it until its lease has expired, on the clock of the
-- database. The number of commits shows a replica if a commit in doubt has succeeded, and if commits were lost.
CREATE TABLE replica (
    number       INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         TEXT NOT NULL,
    lease_until  TIMESTAMPTZ NOT NULL,
    commits      INTEGER NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Work that one replica does for all. The holder is a random number of the process.
CREATE TABLE lease (
    name         TEXT PRIMARY KEY,
    holder       INTEGER NOT NULL,
    lease_until  TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);

-- Rate limits for all replicas together: the time at which all permits that were taken are due.
CREATE TABLE rate_limit (
    name          TEXT PRIMARY KEY,
    due_time      TIMESTAMPTZ NOT NULL,
    paused_until  TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 50);
";

/// Creates the tables of a new journal. Checks an existing one.
pub(super) fn initialize(connection: &Connection) -> Result<(), OpenFailure> {
    let db = PostgresDatabase::begin(connection, "BEGIN");
    initialize_in(&db)?;
    db.send_command("COMMIT");
    Ok(db.wait()?)
}

/// Does the same in the transaction of the caller, which has the lock of [`lock`] then.
pub(super) fn initialize_in(db: &PostgresDatabase<'_>) -> Result<(), OpenFailure> {
    check_server(db)?;
    lock(db)?;
    if count_tables(db)? == 0 { Ok(create(db)?) } else { check_version(db) }
}

/// Waits for the lock, until the end of the transaction: another replica may start at the same time, or an import may
/// be running.
pub(super) fn lock(db: &PostgresDatabase<'_>) -> Result<(), OpenFailure> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut has_logged = false;
    loop {
        let sql = "SELECT pg_try_advisory_xact_lock(?)";
        if db.as_database().get(sql, &values![LOCK], |row| row.get(0))? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(OpenFailure::Busy);
        }
        if !has_logged {
            has_logged = true;
            tracing::info!("waiting for another process that creates or imports the journal");
        }
        db.block_on(async {
            sleep(LOCK_INTERVAL).await;
            Ok(())
        })?;
    }
}

/// Checks an existing journal.
pub(super) fn check(connection: &Connection) -> Result<(), TransferError> {
    let db = PostgresDatabase::begin(connection, "BEGIN READ ONLY");
    if count_tables(&db)? == 0 {
        return Err(TransferError::NoJournal);
    }
    check_version(&db)?;
    db.send_command("COMMIT");
    Ok(db.wait()?)
}

/// Checks an existing journal, and makes its schema the search path of the transaction.
pub(super) fn check_existing(db: &PostgresDatabase<'_>) -> Result<(), OpenFailure> {
    if count_tables(db)? == 0 {
        return Err(OpenFailure::NoJournal);
    }
    check_version(db)
}

fn count_tables(db: &PostgresDatabase<'_>) -> Result<i64> {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace =
         (SELECT oid FROM pg_namespace WHERE nspname = ?) AND relkind = 'r'";
    db.as_database().get(sql, &values![SCHEMA], |row| row.get(0))
}

fn check_server(db: &dyn Database) -> Result<(), OpenFailure> {
    let sql = "SELECT CAST(current_setting('server_version_num') AS BIGINT),
           current_setting('server_version'), pg_encoding_to_char(encoding)
         FROM pg_database WHERE datname = current_database()";
    let (number, version, encoding): (i64, String, String) =
        db.get(sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if number < OLDEST_SERVER {
        return Err(OpenFailure::OldServer(version));
    }
    if encoding != "UTF8" {
        return Err(OpenFailure::Encoding(encoding));
    }
    Ok(())
}

fn create(db: &PostgresDatabase<'_>) -> Result<()> {
    // PostgreSQL checks the right to create a schema before it checks if the schema exists.
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname = ?";
    let schemas: i64 = db.as_database().get(sql, &values![SCHEMA], |row| row.get(0))?;
    if schemas == 0 {
        db.run_script(&format!("CREATE SCHEMA {SCHEMA}"))?;
    }
    db.run_script(&format!(
        "SET LOCAL search_path = {SCHEMA}; {}",
        translate_definitions(&format!("{TABLES}{OWN_TABLES}"))
    ))?;
    meta::store(db, meta::SCHEMA_VERSION, &VERSION.to_be_bytes())?;
    let sql = "INSERT INTO head (id, last_position, counts, epoch) VALUES (1, 0, ?, 0)";
    db.execute(sql, &values![Vec::new()])?;
    start_epoch(db, 0)?;
    Ok(())
}

fn check_version(db: &PostgresDatabase<'_>) -> Result<(), OpenFailure> {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace =
         (SELECT oid FROM pg_namespace WHERE nspname = ?) AND relname IN ('meta', 'head')";
    let own: i64 = db.as_database().get(sql, &values![SCHEMA], |row| row.get(0))?;
    if own != 2 {
        return Err(OpenFailure::ForeignTables(SCHEMA));
    }
    db.run_script(&format!("SET LOCAL search_path = {SCHEMA}"))?;
    match meta::load(db, meta::SCHEMA_VERSION)?.map(i64::from_be_bytes) {
        Some(VERSION) => Ok(()),
        Some(found) => Err(OpenFailure::SchemaVersion { found, supported: VERSION }),
        None => Err(OpenFailure::ForeignTables(SCHEMA)),
    }
}
