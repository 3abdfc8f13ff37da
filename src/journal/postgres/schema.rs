//! Creates the tables, and checks an existing database.

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
};

/// The schema of all tables. Every transaction makes it the search path.
const SCHEMA: &str = "thingspace_gateway";
/// The oldest supported version of the server, as `server_version_num`.
const OLDEST_SERVER: i64 = 140_000;
const SCHEMA_VERSION: &str = "schema_version";

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

-- The replicas that do work which one replica does for all.
CREATE TABLE lease (
    name         TEXT PRIMARY KEY,
    replica      INTEGER NOT NULL,
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
    check_server(&db)?;
    // Another replica may start at the same time.
    db.as_database().get(
        "SELECT 1 FROM pg_advisory_xact_lock(?)",
        &values![0x7473_6777_i64],
        |_| Ok(()),
    )?;
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace =
         (SELECT oid FROM pg_namespace WHERE nspname = ?) AND relkind = 'r'";
    let tables: i64 = db.as_database().get(sql, &values![SCHEMA], |row| row.get(0))?;
    if tables == 0 {
        create(&db)?;
    } else {
        check_version(&db)?;
    }
    db.send_command("COMMIT");
    Ok(db.wait()?)
}

/// Checks that a database has a journal of this version. Makes its schema the search path of the transaction.
pub(super) fn check_existing(db: &PostgresDatabase<'_>) -> Result<(), OpenFailure> {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace =
         (SELECT oid FROM pg_namespace WHERE nspname = ?) AND relkind = 'r'";
    let tables: i64 = db.as_database().get(sql, &values![SCHEMA], |row| row.get(0))?;
    if tables == 0 {
        return Err(OpenFailure::NoJournal);
    }
    check_version(db)
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
    meta::store(db, SCHEMA_VERSION, &VERSION.to_be_bytes())?;
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
    match meta::load(db, SCHEMA_VERSION)?.map(i64::from_be_bytes) {
        Some(VERSION) => Ok(()),
        Some(found) => Err(OpenFailure::SchemaVersion { found, supported: VERSION }),
        None => Err(OpenFailure::ForeignTables(SCHEMA)),
    }
}
