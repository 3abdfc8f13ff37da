//! Export, backup, check and import of the journal of a directory.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{
    TransactionBehavior,
    types::{ToSqlOutput, ValueRef},
};

use crate::{
    domain::clock::Clock,
    journal::{
        Origin,
        check::{Check, CheckReport, Finding},
        sql::{
            Column, Database, Row, SqlError, error::is_damaged_file, tables::meta, value::values,
        },
        sqlite::{
            connection::LockedConnection,
            directory::{self, DATABASE},
            error::{Damage, JournalOpenError, OpenFailure},
            integrity,
            marker::{self, Marker, MarkerFile},
            read_limits::ReadLimits,
            schema,
            snapshot::Snapshot,
        },
        transfer::{
            self, ExportReport, FileHeader, FileKind, FileReport, ImportReport, Imported, Purpose,
            Rows, Source, Table, Target, TimeLimit, TransferError,
        },
    },
};

/// Page cache of the connection, in KiB.
const CACHE_KIB: i64 = 32_000;
/// Steps of SQLite's virtual machine between two checks of the limits, some milliseconds.
const PROGRESS_STEPS: i32 = 100_000;

/// A connection in a transaction.
struct SqliteTransfer<'c>(&'c rusqlite::Connection);

/// Exports the journal of a directory. No other process may use it.
///
/// # Errors
///
/// Fails if there is no journal, if another process uses it, if data is missing or damaged, or if the output cannot be
/// written.
pub fn export(
    dir: &Path,
    allow_network: bool,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    if !dir.join(DATABASE).exists() {
        return Err(TransferError::NoJournal);
    }
    let mut connection = open(dir, allow_network).map_err(|failure| at(dir, failure))?;
    let transaction = connection.transaction().map_err(SqlError::from)?;
    if !schema::is_initialized(&transaction).map_err(|failure| at(dir, failure))? {
        return Err(TransferError::NoJournal);
    }
    transfer::export(&SqliteTransfer(&transaction), FileKind::Export, Vec::new(), output)
}

/// Writes a backup of the journal of a directory. A gateway may use it meanwhile. Changes no file of the journal.
///
/// # Errors
///
/// Fails if there is no journal, if data is missing or damaged, if the output cannot be written, or if the backup takes
/// longer than `limit`, could fill the file system of the journal, or keeps a gateway from starting. `output_device` is the
/// device of the output, if that is a file.
pub fn back_up(
    dir: &Path,
    allow_network: bool,
    clock: &dyn Clock,
    limit: TimeLimit,
    output_device: Option<u64>,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let snapshot = open_snapshot(dir, allow_network)?;
    let marker = snapshot.marker();
    // The first read of the transaction is later.
    let snapshot_time_us = clock.now().as_micros();
    let transaction = snapshot.begin().map_err(|failure| at(dir, failure))?;
    let damage = Snapshot::find_damage(marker, &transaction).map_err(|failure| at(dir, failure))?;
    if let Some(damage) = damage {
        return Err(at(dir, damage.into()));
    }
    let limits = snapshot.limits(dir, limit, output_device);
    let check = move || limits.check();
    let kind = FileKind::Backup { snapshot_time_us };
    transfer::write_within_limits(output, check, |output| {
        transfer::export(&SqliteTransfer(&transaction), kind, Vec::new(), output)
    })
}

/// Checks the journal of a directory. A gateway may use it meanwhile. Changes no file of the journal.
///
/// # Errors
///
/// Fails if there is no journal, if it waits for a file, if it cannot be read, or if the check takes longer than `limit`,
/// lets the write-ahead log fill the file system, or keeps a gateway from starting. Damage is no error, but a finding.
pub fn check(
    dir: &Path,
    allow_network: bool,
    limit: TimeLimit,
) -> Result<CheckReport, TransferError> {
    let mut snapshot = match open_snapshot(dir, allow_network) {
        Ok(snapshot) => snapshot,
        Err(error) => return of_damage(&error).ok_or(error),
    };
    let (marker, is_in_use) = (snapshot.marker(), snapshot.is_in_use());
    let limits = snapshot.limits(dir, limit, None);
    limits.check()?;
    let reached = limit_reads(snapshot.connection(), limits)?;
    let transaction = match snapshot.begin().map_err(|failure| at(dir, failure)) {
        Ok(transaction) => transaction,
        Err(error) => return of_damage(&error).ok_or(error),
    };
    let report = check_snapshot(&transaction, marker, dir)
        .finish(|error| reached.lock().take().map_or(error, TransferError::from))?;
    Ok(CheckReport { is_in_use, ..report })
}

/// Interrupts the statements of a connection when a limit is reached. Returns the error of the limit then.
fn limit_reads(
    connection: &mut rusqlite::Connection,
    limits: ReadLimits,
) -> Result<Arc<Mutex<Option<io::Error>>>, TransferError> {
    let reached = Arc::new(Mutex::new(None));
    let first = Arc::clone(&reached);
    let is_over = move || {
        limits.check().is_err_and(|error| {
            first.lock().get_or_insert(error);
            true
        })
    };
    connection.progress_handler(PROGRESS_STEPS, Some(is_over)).map_err(SqlError::from)?;
    Ok(reached)
}

fn check_snapshot(connection: &rusqlite::Connection, marker: MarkerFile, dir: &Path) -> Check {
    let source = SqliteTransfer(connection);
    let mut check = Check::default();
    let mut has_tables = true;
    check.run("the position of the journal", |report| {
        let damage = match Snapshot::find_damage(marker, connection) {
            Err(OpenFailure::Database(error)) => return Err(SqlError::from(error).into()),
            Err(OpenFailure::Value(text)) => return Err(TransferError::DamagedDatabase(text)),
            found => found.map_err(|failure| at(dir, failure))?,
        };
        has_tables = damage != Some(Damage::NoTables);
        let findings = damage.map(|damage| at(dir, damage.into()).to_string());
        report.findings.extend(findings.map(Finding::explained));
        Ok(())
    });
    if !has_tables {
        return check;
    }
    check.check_identity(&source);
    check.run("journal.db", |report| {
        let db: &dyn Database = connection;
        let lines: Vec<String> = db.list("PRAGMA integrity_check(20)", &[], |row| row.get(0))?;
        for line in lines.iter().filter(|line| *line != "ok") {
            report.add(format!("journal.db is damaged: {line}"));
        }
        Ok(())
    });
    check.check_types(&source);
    check.check_tables(&source);
    check
}

/// Returns the report of an error that shows that the journal is damaged.
fn of_damage(error: &TransferError) -> Option<CheckReport> {
    match error {
        TransferError::Open { source, .. } if is_damage(source.downcast_ref()) => {
            let finding = Finding::explained(source.to_string());
            Some(CheckReport::of_unreadable(finding))
        }
        _ => None,
    }
}

fn is_damage(error: Option<&JournalOpenError>) -> bool {
    error.is_some_and(|error| matches!(error.failure, OpenFailure::Damaged(_)))
}

fn open_snapshot(dir: &Path, allow_network: bool) -> Result<Snapshot, TransferError> {
    let snapshot = Snapshot::open(dir, allow_network).map_err(|failure| at(dir, failure))?;
    let mut snapshot = snapshot.ok_or(TransferError::NoJournal)?;
    let is_initialized = schema::is_initialized(snapshot.connection());
    match is_initialized.map_err(|failure| at(dir, failure))? {
        true => Ok(snapshot),
        false if snapshot.marker() == MarkerFile::Missing => Err(TransferError::NoJournal),
        false => Err(at(dir, Damage::NoTables.into())),
    }
}

/// Fills the journal of a directory, which is created if it is missing, from a file. The journal is reserved before the input
/// is read: no gateway starts with it until this has succeeded.
///
/// # Errors
///
/// Fails if the directory has a journal with data, if another process uses it, or if the input is damaged, belongs
/// to another ThingSpace, or does not fit the purpose. The journal stays empty then. After
/// [`NotFinished`](TransferError::NotFinished), or an end of the process after the commit, this must be repeated with the
/// same file.
pub fn import(
    dir: &Path,
    allow_network: bool,
    origin: &Origin,
    purpose: Purpose<'_>,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let mut connection = open_to_fill(dir, allow_network).map_err(|failure| at(dir, failure))?;
    let report = match reserve(dir, &mut connection)? {
        Reserved::Empty => fill(&mut connection, origin, purpose, input)?,
        Reserved::Filled(source) => {
            let FileReport { header, rows } = transfer::verify(input)?;
            if source != describe(purpose, &header)? {
                return Err(TransferError::FilledFromOther);
            }
            let epoch = meta::load(&*connection, meta::EPOCH)?.map_or(0, u64::from_be_bytes);
            ImportReport { epoch: format!("{epoch:016x}"), header, rows }
        }
    };
    finish(dir, &connection)
        .map_err(|failure| TransferError::NotFinished(at(dir, failure).to_string()))?;
    Ok(report)
}

/// A journal that no gateway starts with.
enum Reserved {
    Empty,
    /// A command was interrupted after its commit. The text describes its file.
    Filled(Vec<u8>),
}

fn open_to_fill(dir: &Path, allow_network: bool) -> Result<LockedConnection, OpenFailure> {
    directory::create(dir, "journal.dir")?;
    let locks = Arc::new(integrity::check(dir, allow_network)?);
    Ok(LockedConnection::open_to_fill(&dir.join(DATABASE), CACHE_KIB, &locks)?)
}

/// Creates the tables, and keeps a gateway from starting with the empty journal, in one transaction.
fn reserve(dir: &Path, connection: &mut rusqlite::Connection) -> Result<Reserved, TransferError> {
    let transaction = connection.transaction().map_err(SqlError::from)?;
    schema::initialize_in(&transaction).map_err(|failure| at(dir, failure))?;
    let reserved: Option<Vec<u8>> = meta::load(&*transaction, meta::AWAITS_IMPORT)?;
    if let Some(source) = reserved.filter(|source| !source.is_empty()) {
        return Ok(Reserved::Filled(source));
    }
    transfer::check_empty(&*transaction)?;
    meta::store(&*transaction, meta::AWAITS_IMPORT, &[])?;
    transaction.commit().map_err(SqlError::from)?;
    // The directory entry of the database may be new.
    directory::sync(dir)?;
    Ok(Reserved::Empty)
}

fn fill(
    connection: &mut rusqlite::Connection,
    origin: &Origin,
    purpose: Purpose<'_>,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(SqlError::from)?;
    let target = SqliteTransfer(&transaction);
    let Imported { report, .. } = transfer::import(&target, origin, purpose, input)?;
    meta::delete(&*transaction, meta::AWAITS_IMPORT)?;
    transfer::check_imported(&target, purpose)?;
    let source = describe(purpose, &report.header)?;
    meta::store(&*transaction, meta::AWAITS_IMPORT, &source)?;
    transaction.commit().map_err(SqlError::from)?;
    Ok(report)
}

/// Describes a file and what it was used for.
fn describe(purpose: Purpose<'_>, header: &FileHeader) -> io::Result<Vec<u8>> {
    let command = match purpose {
        Purpose::Move => "import",
        Purpose::Restore { .. } => "restore",
    };
    Ok(format!("{command} {}", serde_json::to_string(header)?).into_bytes())
}

/// Creates the marker of a journal that has been filled, and lets gateways start.
fn finish(dir: &Path, connection: &rusqlite::Connection) -> Result<(), OpenFailure> {
    let state = integrity::read_state(connection)?;
    let epoch = state.epoch.ok_or_else(|| OpenFailure::Value("it has no epoch".into()))?;
    // The marker must not be ahead of the database, whose directory entry may be new.
    directory::sync(dir)?;
    marker::create(dir, Marker { epoch, position: state.position })?;
    Ok(meta::delete(connection, meta::AWAITS_IMPORT)?)
}

fn open(dir: &Path, allow_network: bool) -> Result<LockedConnection, OpenFailure> {
    let locks = Arc::new(integrity::check(dir, allow_network)?);
    Ok(LockedConnection::open(&dir.join(DATABASE), CACHE_KIB, &locks)?)
}

fn at(dir: &Path, failure: OpenFailure) -> TransferError {
    let failure = match failure {
        OpenFailure::Database(error) if is_damaged_file(&error) => {
            Damage::Unreadable(error.to_string()).into()
        }
        failure => failure,
    };
    let is_final = failure.is_final();
    let source = Box::new(JournalOpenError { dir: dir.to_owned(), failure });
    TransferError::Open { source, is_final }
}

impl Source for SqliteTransfer<'_> {
    fn database(&self) -> &dyn Database {
        self.0
    }

    fn last_position(&self) -> Result<u64, TransferError> {
        Ok(meta::kept_range(self.0)?.last)
    }

    fn last_quarantine_id(&self) -> Result<i64, TransferError> {
        let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'quarantine'";
        let db: &dyn Database = self.0;
        Ok(db.get(sql, &[], |row| row.get(0))?)
    }

    fn collation(&self) -> &'static str {
        ""
    }

    fn stream(
        &self,
        sql: &str,
        each: &mut dyn FnMut(&dyn Row) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let mut failed = Ok(());
        self.0.query(sql, &[], &mut |row| {
            failed = each(row);
            Ok(if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        failed
    }
}

impl Target for SqliteTransfer<'_> {
    fn database(&self) -> &dyn Database {
        self.0
    }

    fn insert(&self, table: &Table, rows: &mut dyn Rows) -> Result<(), TransferError> {
        let (name, columns) = (table.name, table.column_names());
        let values = vec!["?"; table.columns.len()].join(", ");
        let sql = format!("INSERT INTO {name} ({columns}) VALUES ({values})");
        let mut statement = self.0.prepare(&sql).map_err(SqlError::from)?;
        while let Some(row) = rows.next_row()? {
            for (index, column) in (1..).zip(&row) {
                let value = ToSqlOutput::Borrowed(match column {
                    Column::Null => ValueRef::Null,
                    Column::Int(value) => ValueRef::Integer(*value),
                    Column::Text(text) => ValueRef::Text(text.as_bytes()),
                    Column::Bytes(bytes) => ValueRef::Blob(bytes),
                });
                statement.raw_bind_parameter(index, value).map_err(SqlError::from)?;
            }
            statement.raw_execute().map_err(SqlError::from)?;
        }
        Ok(())
    }

    fn finish(&self, imported: &Imported) -> Result<(), TransferError> {
        // The next entry of the quarantine gets a higher id than any before.
        let db: &dyn Database = self.0;
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'quarantine'", &[])?;
        db.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('quarantine', ?)",
            &values![imported.last_quarantine_id],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
