//! Export, backup, check and import of the journal of a database.

use std::{
    future::Future,
    io::{Read, Write},
    pin::pin,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt as _, TryStreamExt as _};
use thingspace_settings::Secret;
use tokio::time::timeout;

use crate::{
    domain::clock::Clock,
    journal::{
        Origin,
        apply::Counts,
        check::{Check, CheckReport},
        postgres::{
            connection::{Connection, Connector},
            database::PostgresDatabase,
            durability::DurabilityCheck,
            error::{JournalOpenError, OpenFailure, PostgresError},
            schema,
            url::{self, ConnectionSettings},
            value::{Parameter, PostgresRow},
            writer::{LOCK_HEAD, decode_counts, encode_counts},
        },
        sql::{Column, Database, Row, SqlError, tables::meta, value::values},
        transfer::{
            self, ExportReport, FileKind, ImportReport, Imported, Purpose, Rows, Source, Table,
            Target, TimeLimit, TransferError,
        },
    },
};

/// Begins an export: all statements see the same moment.
const BEGIN_EXPORT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = thingspace_gateway;
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0";

/// Begins an import.
const BEGIN_IMPORT: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = thingspace_gateway;
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '15s'";

/// The beginning and the end of the data of a COPY in the binary format.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TRAILER: i16 = -1;
/// Time in which the server cancels a query after the limit is reached.
const CANCEL_MARGIN: Duration = Duration::from_secs(5);
/// The size from which on rows are sent.
const CHUNK: usize = 256 * 1024;

/// The database to export or import.
#[derive(Debug, Clone)]
pub struct TransferDatabase {
    /// The URL of the database.
    pub url: Secret,
    /// The password, unless the URL has it.
    pub password: Option<Secret>,
    /// Allows a server on which a commit does not survive a power loss.
    pub allow_relaxed_durability: bool,
}

impl TransferDatabase {
    /// Names the database without credentials, as a URL.
    pub fn name(&self) -> String {
        url::name_database(&self.url).unwrap_or_else(|| "of journal.url".into())
    }
}

/// A connection in a transaction.
struct PostgresTransfer<'c> {
    connection: &'c Connection,
    db: PostgresDatabase<'c>,
    /// Limits each query.
    limit: Option<TimeLimit>,
}

/// Exports the journal of a database as it is at one moment. Gateways may use it, but the file lacks the events that
/// they store later.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if there is no journal, if the database cannot be reached, or if the output cannot be written.
pub fn export(
    database: &TransferDatabase,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let connection = connect(database)?;
    schema::check(&connection)?;
    let db = PostgresDatabase::begin(&connection, BEGIN_EXPORT);
    let running = running_gateways(&db)?;
    let transfer = PostgresTransfer { connection: &connection, db, limit: None };
    transfer::export(&transfer, FileKind::Export, running, output)
}

/// Writes a backup of the journal of a database as it is at one moment. Gateways may use it.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if there is no journal, if the database cannot be reached, if the output cannot be written, or if the backup
/// takes longer than `limit`.
pub fn back_up(
    database: &TransferDatabase,
    clock: &dyn Clock,
    limit: TimeLimit,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let connection = connect_within(database, limit)?;
    schema::check(&connection)?;
    // The first read of the transaction is later.
    let snapshot_time_us = clock.now().as_micros();
    let db = PostgresDatabase::begin(&connection, BEGIN_EXPORT);
    let running = running_gateways(&db)?;
    let transfer = PostgresTransfer { connection: &connection, db, limit: Some(limit) };
    let check = move || limit.remaining().map(drop);
    let kind = FileKind::Backup { snapshot_time_us };
    transfer::write_within_limits(output, check, |output| {
        transfer::export(&transfer, kind, running, output)
    })
}

/// Checks the journal of a database as it is at one moment. Gateways may use it.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if there is no journal, if it waits for a file, if the database cannot be reached or read, or if the check takes
/// longer than `limit`. Damage is no error, but a finding.
pub fn check(database: &TransferDatabase, limit: TimeLimit) -> Result<CheckReport, TransferError> {
    let connection = connect_within(database, limit)?;
    schema::check(&connection)?;
    let db = PostgresDatabase::begin(&connection, BEGIN_EXPORT);
    let is_in_use = !running_gateways(&db)?.is_empty();
    let sql = "SELECT counts, epoch FROM head WHERE id = 1";
    let (counts, epoch): (Counts, i64) =
        db.as_database().get(sql, &[], |row| Ok((decode_counts(row.get(0)?), row.get(1)?)))?;
    let transfer = PostgresTransfer { connection: &connection, db, limit: Some(limit) };
    let mut check = Check::default();
    check.check_identity(&transfer);
    check.run("the head row", |report| {
        if report.epoch != format!("{epoch:016x}") {
            report.add("the tables head and meta have different epochs".into());
        }
        Ok(())
    });
    check.check_tables(&transfer);
    check.compare_counts(&counts);
    Ok(CheckReport { is_in_use, ..check.finish(|error| error)? })
}

/// Prepares a database without a journal, or with an empty one, for an import: no gateway opens it before.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if the database has a journal with data, or if gateways use it.
pub fn prepare(database: &TransferDatabase) -> Result<(), TransferError> {
    let connection = connect(database)?;
    prepare_on(&connection)
}

/// Imports a journal into a database without one, or with an empty one. Gateways that start meanwhile wait. They also wait
/// after an import that has failed.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if the database has a journal with data, if gateways use it, or if the input is damaged or belongs to another
/// ThingSpace. The journal stays empty then.
pub fn import(
    database: &TransferDatabase,
    origin: &Origin,
    purpose: Purpose<'_>,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let connection = connect(database)?;
    // Otherwise, a gateway that waits would open the empty journal after an import that has failed.
    prepare_on(&connection)?;
    // A query of all rows takes minutes in a large journal.
    let connection = connection.with_response_timeout(Duration::MAX);
    let db = begin_import(&connection)?;
    let durability = DurabilityCheck::new(database.allow_relaxed_durability);
    durability.check(&db)?.map_err(OpenFailure::NotDurable)?;
    let transfer = PostgresTransfer { connection: &connection, db, limit: None };
    let imported = transfer::import(&transfer, origin, purpose, input)?;
    meta::delete(&transfer.db, meta::AWAITS_IMPORT)?;
    transfer::check_imported(&transfer, purpose)?;
    // A replica that has opened the journal before gets no lease.
    meta::load_or_create_random::<16>(&transfer.db, meta::INSTANCE)?;
    transfer.db.wait()?;
    // A lost connection does not show whether the server has committed.
    transfer.execute("COMMIT").map_err(|error| TransferError::CommitInDoubt(error.to_string()))?;
    Ok(imported.report)
}

/// Creates the tables if there are none, and reserves the journal, in one transaction: a gateway that starts later never
/// finds an empty journal.
fn prepare_on(connection: &Connection) -> Result<(), TransferError> {
    let db = PostgresDatabase::begin(connection, BEGIN_IMPORT);
    schema::initialize_in(&db)?;
    check_unused(&db)?;
    transfer::clear(&db)?;
    meta::delete(&db, meta::INSTANCE)?;
    meta::store(&db, meta::AWAITS_IMPORT, &[])?;
    db.send_command("COMMIT");
    Ok(db.wait()?)
}

/// Begins a transaction that keeps gateways out of an empty journal.
fn begin_import(connection: &Connection) -> Result<PostgresDatabase<'_>, TransferError> {
    let db = PostgresDatabase::begin(connection, BEGIN_IMPORT);
    // A gateway that starts waits for this lock; one that runs waits for the head row.
    schema::lock(&db)?;
    check_unused(&db)?;
    Ok(db)
}

/// Locks the journal. Fails if gateways use it, or if it has data.
fn check_unused(db: &PostgresDatabase<'_>) -> Result<(), TransferError> {
    let last_position: u64 = db.as_database().get(LOCK_HEAD, &[], |row| row.get(0))?;
    let running = running_gateways(db)?;
    if !running.is_empty() {
        return Err(TransferError::InUse(running.join(", ")));
    }
    if last_position > 0 {
        return Err(TransferError::NotEmpty(format!("it has reached position {last_position}")));
    }
    Ok(())
}

fn connect(database: &TransferDatabase) -> Result<Connection, OpenFailure> {
    let settings = ConnectionSettings::parse(&database.url, database.password.clone())?;
    let connector = Connector::new(settings)?;
    Ok(connector.driver().block_on(connector.connect(None))?)
}

/// Opens a connection that waits for each response until the limit is reached.
fn connect_within(
    database: &TransferDatabase,
    limit: TimeLimit,
) -> Result<Connection, TransferError> {
    let remaining = limit.remaining()?.saturating_add(CANCEL_MARGIN);
    Ok(connect(database)?.with_response_timeout(remaining))
}

/// Returns the names of the replicas that hold a lease.
pub(super) fn running_gateways(db: &PostgresDatabase<'_>) -> Result<Vec<String>, SqlError> {
    let sql = "SELECT name FROM replica WHERE lease_until > clock_timestamp() ORDER BY number";
    db.as_database().list(sql, &[], |row| row.get(0))
}

impl From<OpenFailure> for TransferError {
    fn from(failure: OpenFailure) -> Self {
        let is_final = failure.is_final();
        Self::Open { source: Box::new(JournalOpenError::from(failure)), is_final }
    }
}

impl PostgresTransfer<'_> {
    /// Waits for a response for as long as the connection is open, or until the limit is reached: a step may take minutes.
    fn block_on<T, E>(
        &self,
        response: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransferError>
    where
        SqlError: From<E>,
    {
        let time = match &self.limit {
            Some(limit) => limit.remaining()?.saturating_add(CANCEL_MARGIN),
            None => Duration::MAX,
        };
        let response = async {
            let received = timeout(time, response).await;
            received.map_or_else(
                |_elapsed| Err(<SqlError as From<PostgresError>>::from(PostgresError::timed_out())),
                |response| response.map_err(SqlError::from),
            )
        };
        self.connection.driver().block_on(response).map_err(|error| match PostgresError::is_damage(
            &error,
        ) {
            true => TransferError::DamagedDatabase(error.to_string()),
            false => error.into(),
        })
    }

    fn execute(&self, sql: &str) -> Result<(), TransferError> {
        self.block_on(self.connection.client().batch_execute(sql))
    }

    /// Lets the server cancel the next query when no time is left.
    fn limit_query(&self) -> Result<(), TransferError> {
        let Some(limit) = &self.limit else {
            return Ok(());
        };
        let remaining = limit.remaining()?.as_millis().max(1);
        self.execute(&format!("SET LOCAL statement_timeout = {remaining}"))
    }

    fn stream_rows(
        &self,
        sql: &str,
        each: &mut dyn FnMut(&dyn Row) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let client = self.connection.client();
        let rows = self.block_on(async {
            let statement = client.prepare(sql).await?;
            client.query_raw(&statement, std::iter::empty::<Parameter>()).await
        })?;
        let mut rows = pin!(rows);
        while let Some(row) = self.block_on(rows.try_next())? {
            each(&PostgresRow { row: &row, skipped: 0 })?;
        }
        Ok(())
    }
}

impl Source for PostgresTransfer<'_> {
    fn database(&self) -> &dyn Database {
        &self.db
    }

    fn last_position(&self) -> Result<u64, TransferError> {
        let sql = "SELECT last_position FROM head WHERE id = 1";
        Ok(self.db.as_database().get(sql, &[], |row| row.get(0))?)
    }

    fn last_quarantine_id(&self) -> Result<i64, TransferError> {
        let sql = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM quarantine_id_seq";
        Ok(self.db.as_database().get(sql, &[], |row| row.get(0))?)
    }

    fn collation(&self) -> &'static str {
        " COLLATE \"C\""
    }

    fn stream(
        &self,
        sql: &str,
        each: &mut dyn FnMut(&dyn Row) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        self.limit_query()?;
        self.stream_rows(sql, each).or_else(|error| {
            // The server has cancelled the query.
            self.limit.map_or(Ok(Duration::ZERO), |limit| limit.remaining())?;
            Err(error)
        })
    }
}

impl Target for PostgresTransfer<'_> {
    fn database(&self) -> &dyn Database {
        &self.db
    }

    fn insert(&self, table: &Table, rows: &mut dyn Rows) -> Result<(), TransferError> {
        let sql = format!("COPY {} ({}) FROM STDIN BINARY", table.name, table.column_names());
        let mut sink = pin!(self.block_on(self.connection.client().copy_in::<_, Bytes>(&sql))?);
        let mut data = BytesMut::from(COPY_HEADER);
        while let Some(row) = rows.next_row()? {
            encode(&row, &mut data)?;
            if data.len() >= CHUNK {
                self.block_on(sink.send(data.split().freeze()))?;
            }
        }
        data.put_i16(COPY_TRAILER);
        self.block_on(sink.send(data.freeze()))?;
        self.block_on(sink.finish())?;
        Ok(())
    }

    fn finish(&self, imported: &Imported) -> Result<(), TransferError> {
        let db = self.db.as_database();
        let Imported { epoch, last_position, last_quarantine_id, counts, .. } = imported;
        let sql = "UPDATE head SET last_position = ?, counts = ?, epoch = ? WHERE id = 1";
        let epoch = epoch.0.cast_signed();
        db.execute(sql, &values![*last_position, encode_counts(counts), epoch])?;
        if *last_quarantine_id > 0 {
            let sql = "SELECT setval('quarantine_id_seq', ?)";
            db.get(sql, &values![*last_quarantine_id], |_| Ok(()))?;
        }
        // Until the server analyzes the new tables by itself, it assumes that they are empty. Other tables can be locked.
        let tables: Vec<&str> = transfer::TABLES.iter().map(|table| table.name).collect();
        self.execute(&format!("ANALYZE {}", tables.join(", ")))
    }
}

/// Encodes a row in the binary format of COPY.
fn encode(row: &[Column<'_>], out: &mut BytesMut) -> Result<(), TransferError> {
    out.put_i16(i16::try_from(row.len()).unwrap_or_default());
    for column in row {
        match column {
            Column::Null => out.put_i32(-1),
            Column::Int(value) => {
                out.put_i32(8);
                out.put_i64(*value);
            }
            Column::Text(text) => put_bytes(text.as_bytes(), out)?,
            Column::Bytes(bytes) => put_bytes(bytes, out)?,
        }
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) -> Result<(), TransferError> {
    let length = i32::try_from(bytes.len());
    out.put_i32(length.map_err(|_| TransferError::Database("a value is too large".into()))?);
    out.put_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests;
