//! Fills an empty journal from a file.

use std::{collections::BTreeMap, io::Read};

use crate::journal::{
    Epoch, ForwardQueueStats, Origin,
    apply::Counts,
    check,
    sql::{
        Column, Database,
        tables::{changes, forward_queue, meta, quarantine, schema},
    },
    transfer::{
        error::TransferError,
        export::{FileEnd, FileHeader, FileKind, Source, TableHeader},
        file::{BlockKind, FileReader},
        restore::{self, ValueUpdate},
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

/// The purpose of an import.
#[derive(Clone, Copy)]
pub enum Purpose<'u> {
    /// The journal of the file moves here: it keeps its epoch.
    Move,
    /// The journal of the file was lost after the file was written: the copy gets a new epoch and these values.
    Restore {
        /// The values.
        updates: &'u [ValueUpdate<'u, FileHeader>],
        /// Accepts a file of a journal that was damaged.
        allow_unsound: bool,
    },
}

/// The state of the journal after an import.
pub(in crate::journal) struct Imported {
    pub(in crate::journal) epoch: Epoch,
    pub(in crate::journal) last_position: u64,
    pub(in crate::journal) last_quarantine_id: i64,
    pub(in crate::journal) counts: Counts,
    pub(in crate::journal) report: ImportReport,
}

/// An import or a restore that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The header of the file.
    pub header: FileHeader,
    /// The epoch of the journal, as a hexadecimal number.
    pub epoch: String,
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
    purpose: Purpose<'_>,
    input: &mut dyn Read,
) -> Result<Imported, TransferError> {
    let mut file = FileReader::new(input)?;
    let header: FileHeader = file.json(BlockKind::Header)?;
    check_header(&header, origin, purpose)?;
    let db = target.database();
    clear(db)?;
    file.next_block()?;
    let rows = read_tables(&mut file, &mut |table, rows| target.insert(table, rows))?;
    let mut imported = complete(db, header, rows)?;
    if let Purpose::Restore { updates, .. } = purpose {
        let epoch = restore::separate(db, &imported.report.header, updates)?;
        imported.epoch = epoch;
        imported.report.epoch = format!("{:016x}", epoch.0);
    }
    target.finish(&imported)?;
    Ok(imported)
}

/// Checks the rows that were imported, before they are committed. An import keeps what it finds: the journal that it moves
/// is in use.
pub(in crate::journal) fn check_imported(
    source: &dyn Source,
    purpose: Purpose<'_>,
) -> Result<(), TransferError> {
    let Purpose::Restore { allow_unsound: false, .. } = purpose else {
        return Ok(());
    };
    match check::check(source)?.findings.first() {
        None => Ok(()),
        Some(finding) => Err(TransferError::Unsound(finding.problem.clone())),
    }
}

/// Reads all tables, and checks that the file ends after them. Returns the number of rows of each table.
pub(super) fn read_tables<R: Read>(
    file: &mut FileReader<R>,
    read: &mut dyn FnMut(&Table, &mut dyn Rows) -> Result<(), TransferError>,
) -> Result<BTreeMap<String, u64>, TransferError> {
    let mut found = FileEnd::default();
    for table in TABLES {
        if file.json::<TableHeader>(BlockKind::Table)? != TableHeader::from(table) {
            return Err(TransferError::invalid("a table is missing or has other columns"));
        }
        let mut rows = FileRows { file, table, count: 0 };
        read(table, &mut rows)?;
        found.rows.insert(table.name.to_owned(), rows.count);
    }
    if file.json::<FileEnd>(BlockKind::End)? != found {
        return Err(TransferError::invalid("the number of rows is wrong"));
    }
    file.check_end()?;
    Ok(found.rows)
}

fn check_header(
    header: &FileHeader,
    origin: &Origin,
    purpose: Purpose<'_>,
) -> Result<(), TransferError> {
    check_schema(header)?;
    origin.check(&header.origin)?;
    match (header.kind, purpose) {
        (FileKind::Backup { .. }, Purpose::Move) => Err(TransferError::IsBackup),
        (FileKind::Export, _) | (FileKind::Backup { .. }, Purpose::Restore { .. }) => Ok(()),
    }
}

pub(super) fn check_schema(header: &FileHeader) -> Result<(), TransferError> {
    let (found, supported) = (header.schema_version, schema::VERSION);
    if found == supported { Ok(()) } else { Err(TransferError::SchemaVersion { found, supported }) }
}

/// Deletes the values of a journal that was only opened. Rejects one with data.
pub(in crate::journal) fn clear(db: &dyn Database) -> Result<(), TransferError> {
    check_empty(db)?;
    db.execute(&format!("DELETE FROM meta WHERE {}", meta::IS_MOVED), &[])?;
    Ok(())
}

/// Rejects a journal that a gateway has stored anything in.
pub(in crate::journal) fn check_empty(db: &dyn Database) -> Result<(), TransferError> {
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
fn complete(
    db: &dyn Database,
    header: FileHeader,
    rows: BTreeMap<String, u64>,
) -> Result<Imported, TransferError> {
    let FileHeader { epoch: exported, origin, last_position, last_quarantine_id, .. } = &header;
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
        report: ImportReport { epoch: exported.clone(), header, rows },
    })
}
