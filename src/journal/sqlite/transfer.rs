//! Export and import of the journal of a directory.

use std::{
    io::{Read, Write},
    ops::ControlFlow,
    path::Path,
    sync::Arc,
};

use rusqlite::{
    TransactionBehavior,
    types::{ToSqlOutput, ValueRef},
};

use crate::journal::{
    Origin,
    sql::{Column, Database, Row, SqlError, tables::meta, value::values},
    sqlite::{
        checkpoint,
        connection::LockedConnection,
        directory::{self, DATABASE},
        error::{JournalOpenError, OpenFailure},
        integrity,
        marker::{self, Marker},
        schema,
    },
    transfer::{
        self, ExportReport, ImportReport, Imported, Rows, Source, Table, Target, TransferError,
    },
};

/// Page cache of the connection, in KiB.
const CACHE_KIB: i64 = 32_000;

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
    transfer::export(&SqliteTransfer(&transaction), Vec::new(), output)
}

/// Imports a journal into a directory, which is created if it is missing.
///
/// # Errors
///
/// Fails if the directory has a journal with data, if another process uses it, or if the input is damaged or belongs
/// to another ThingSpace. The journal stays empty then.
pub fn import(
    dir: &Path,
    allow_network: bool,
    origin: &Origin,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let opened = directory::create(dir, "journal.dir").map_err(OpenFailure::from).and_then(|()| {
        let mut connection = open(dir, allow_network)?;
        schema::initialize(&mut connection)?;
        Ok(connection)
    });
    let mut connection = opened.map_err(|failure| at(dir, failure))?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(SqlError::from)?;
    let imported = transfer::import(&SqliteTransfer(&transaction), origin, input)?;
    transaction.commit().map_err(SqlError::from)?;
    checkpoint::truncate(&connection);
    // The marker must not be ahead of the database, whose directory entry may be new.
    directory::sync(dir)?;
    let Imported { epoch, last_position: position, .. } = imported;
    marker::create(dir, Marker { epoch, position })?;
    Ok(imported.report)
}

fn open(dir: &Path, allow_network: bool) -> Result<LockedConnection, OpenFailure> {
    let locks = Arc::new(integrity::check(dir, allow_network)?);
    Ok(LockedConnection::open(&dir.join(DATABASE), CACHE_KIB, &locks)?)
}

fn at(dir: &Path, failure: OpenFailure) -> TransferError {
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

    fn stream(
        &self,
        table: &Table,
        each: &mut dyn FnMut(&dyn Row) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let mut failed = Ok(());
        self.0.query(&table.select(""), &[], &mut |row| {
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
