//! Fills an empty journal from a file.

use std::{collections::BTreeMap, io::Read};

use crate::journal::{
    Epoch, ForwardQueueStats, Origin,
    apply::Counts,
    sql::{
        Column, Database,
        tables::{changes, forward_queue, meta, quarantine, schema},
    },
    transfer::{
        error::TransferError,
        export::{FileEnd, FileHeader, TableHeader},
        file::{BlockKind, FileReader},
        tables::{Rows, TABLES, Table},
    },
};

/// A journal to import into, in a transaction that the caller commits.
pub(in crate::journal) trait Target {
    fn database(&self) -> &dyn Database;

    /// Inserts all rows of a table.
    fn insert(&self, table: &Table, rows: &mut dyn Rows) -> Result<(), TransferError>;

    /// Stores what an engine keeps outside of the tables.
    fn finish(&self, imported: &Imported) -> Result<(), TransferError>;
}

/// The state of the journal after an import.
pub(in crate::journal) struct Imported {
    pub(in crate::journal) epoch: Epoch,
    pub(in crate::journal) last_position: u64,
    pub(in crate::journal) last_quarantine_id: i64,
    pub(in crate::journal) counts: Counts,
    pub(in crate::journal) report: ImportReport,
}

/// An import that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The header of the file.
    pub header: FileHeader,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// The rows of a table in a file.
struct FileRows<'f, R> {
    file: &'f mut FileReader<R>,
    table: &'f Table,
    count: u64,
}

impl<R: Read> Rows for FileRows<'_, R> {
    fn next_row(&mut self) -> Result<Option<Vec<Column<'_>>>, TransferError> {
        if !self.file.next_row()? {
            return Ok(None);
        }
        self.count += 1;
        self.file.row(self.table.columns.iter().map(|(_, column)| *column)).map(Some)
    }
}

/// Reads a file into an empty journal.
pub(in crate::journal) fn import(
    target: &dyn Target,
    origin: &Origin,
    input: &mut dyn Read,
) -> Result<Imported, TransferError> {
    let mut file = FileReader::new(input)?;
    let header: FileHeader = file.json(BlockKind::Header)?;
    check_header(&header, origin)?;
    let db = target.database();
    clear(db)?;
    file.next_block()?;
    let mut inserted = FileEnd::default();
    for table in TABLES {
        if file.json::<TableHeader>(BlockKind::Table)? != TableHeader::from(table) {
            return Err(TransferError::invalid("a table is missing or has other columns"));
        }
        let mut rows = FileRows { file: &mut file, table, count: 0 };
        target.insert(table, &mut rows)?;
        inserted.rows.insert(table.name.to_owned(), rows.count);
    }
    if file.json::<FileEnd>(BlockKind::End)? != inserted {
        return Err(TransferError::invalid("the number of rows is wrong"));
    }
    file.check_end()?;
    let imported = complete(db, ImportReport { header, rows: inserted.rows })?;
    target.finish(&imported)?;
    Ok(imported)
}

fn check_header(header: &FileHeader, origin: &Origin) -> Result<(), TransferError> {
    let (found, supported) = (header.schema_version, schema::VERSION);
    if found != supported {
        return Err(TransferError::SchemaVersion { found, supported });
    }
    Ok(origin.check(&header.origin)?)
}

/// Deletes the values of a journal that was only opened. Rejects one with data.
pub(in crate::journal) fn clear(db: &dyn Database) -> Result<(), TransferError> {
    check_empty(db)?;
    db.execute(&format!("DELETE FROM meta WHERE {}", meta::IS_MOVED), &[])?;
    Ok(())
}

/// Rejects a journal that a gateway has stored anything in.
fn check_empty(db: &dyn Database) -> Result<(), TransferError> {
    for table in TABLES.iter().filter(|table| !table.is_meta()) {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name);
        if db.find(&sql, &[], |_| Ok(()))?.is_some() {
            return Err(TransferError::NotEmpty(format!("its table {} has rows", table.name)));
        }
    }
    match meta::kept_range(db)?.last {
        0 => Ok(()),
        last => Err(TransferError::NotEmpty(format!("it has reached position {last}"))),
    }
}

/// Checks the identity of the journal, and completes what depends on its rows.
fn complete(db: &dyn Database, report: ImportReport) -> Result<Imported, TransferError> {
    let FileHeader { epoch: exported, origin, last_position, last_quarantine_id, .. } =
        &report.header;
    let epoch = meta::load(db, meta::EPOCH)?.map_or(0, u64::from_be_bytes);
    let key: Option<[u8; 32]> = meta::load(db, meta::FINGERPRINT_KEY)?;
    if *exported != format!("{epoch:016x}")
        || meta::load_origin(db)?.as_ref() != Some(origin)
        || key.is_none()
    {
        return Err(TransferError::invalid("its identity is incomplete"));
    }
    // The newest events may have been trimmed, or never been stored.
    if meta::kept_range(db)?.last < *last_position {
        meta::skip_to(db, *last_position)?;
    }
    if meta::kept_range(db)?.last != *last_position {
        return Err(TransferError::invalid("it has events after its last position"));
    }
    let waiting = forward_queue::count(db)?;
    let counts = Counts {
        states: changes::count_by_state(db)?,
        forward_queue: ForwardQueueStats { waiting, displaced: 0 },
        quarantine_bytes: quarantine::count_bytes(db)?,
    };
    Ok(Imported {
        epoch: Epoch(epoch),
        last_position: *last_position,
        last_quarantine_id: *last_quarantine_id,
        counts,
        report,
    })
}
