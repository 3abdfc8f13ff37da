//! Writes all tables of a journal to a file.

use std::{collections::BTreeMap, io::Write};

use serde::{Deserialize, Serialize};

use crate::journal::{
    sql::{
        Database, Row,
        tables::{
            meta,
            schema::{self},
        },
    },
    transfer::{
        error::TransferError,
        file::{BlockKind, FileWriter},
        tables::{TABLES, Table},
    },
};

/// A journal to export, in a transaction that sees one moment.
pub(in crate::journal) trait Source {
    fn database(&self) -> &dyn Database;

    /// Returns the newest position, also if its event was trimmed.
    fn last_position(&self) -> Result<u64, TransferError>;

    /// Returns the highest id that an entry of the quarantine had; 0 if there was none.
    fn last_quarantine_id(&self) -> Result<i64, TransferError>;

    /// Follows the name of a text column in an order by its bytes.
    fn collation(&self) -> &'static str;

    /// Runs a query without parameters, and calls `each` for its rows as they arrive.
    fn stream(
        &self,
        sql: &str,
        each: &mut dyn FnMut(&dyn Row) -> Result<(), TransferError>,
    ) -> Result<(), TransferError>;
}

/// The kind of a file. It decides which commands accept the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A journal that moves: its gateways are stopped, and the copy replaces it.
    Export,
    /// A journal at one moment. Its gateways may have continued.
    Backup {
        /// The time of that moment, in microseconds since the Unix epoch. Everything that was acknowledged before
        /// it is in the file.
        snapshot_time_us: i64,
    },
}

/// The first block of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredHeader", into = "StoredHeader")]
pub struct FileHeader {
    /// The kind of the file.
    pub kind: FileKind,
    /// The version of the gateway that wrote the file.
    pub gateway_version: String,
    /// The version of the tables.
    pub schema_version: i64,
    /// The ThingSpace that the changes were sent to.
    pub origin: String,
    /// The epoch, as a hexadecimal number.
    pub epoch: String,
    /// The newest position.
    pub last_position: u64,
    /// The highest id that an entry of the quarantine had.
    pub last_quarantine_id: i64,
}

/// The JSON of a header.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHeader {
    kind: StoredKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_time_us: Option<i64>,
    gateway_version: String,
    schema_version: i64,
    origin: String,
    epoch: String,
    last_position: u64,
    last_quarantine_id: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredKind {
    Export,
    Backup,
}

/// The block of a table.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableHeader {
    pub(super) name: String,
    pub(super) columns: Vec<String>,
}

/// The last block of a file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEnd {
    /// The number of rows of each table.
    pub(super) rows: BTreeMap<String, u64>,
}

/// An export or a backup that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// The header of the file.
    pub header: FileHeader,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// The gateways that used the journal meanwhile, if the engine knows them. The file lacks the events that they
    /// store later.
    pub running_gateways: Vec<String>,
}

impl From<FileHeader> for StoredHeader {
    fn from(header: FileHeader) -> Self {
        let (kind, snapshot_time_us) = match header.kind {
            FileKind::Export => (StoredKind::Export, None),
            FileKind::Backup { snapshot_time_us } => (StoredKind::Backup, Some(snapshot_time_us)),
        };
        let FileHeader { gateway_version, schema_version, origin, epoch, .. } = header;
        let FileHeader { last_position, last_quarantine_id, .. } = header;
        Self {
            kind,
            snapshot_time_us,
            gateway_version,
            schema_version,
            origin,
            epoch,
            last_position,
            last_quarantine_id,
        }
    }
}

impl TryFrom<StoredHeader> for FileHeader {
    type Error = &'static str;

    fn try_from(stored: StoredHeader) -> Result<Self, Self::Error> {
        let StoredHeader { gateway_version, schema_version, origin, epoch, .. } = stored;
        let StoredHeader { last_position, last_quarantine_id, .. } = stored;
        let kind = match (stored.kind, stored.snapshot_time_us) {
            (StoredKind::Export, None) => FileKind::Export,
            (StoredKind::Backup, Some(snapshot_time_us)) => FileKind::Backup { snapshot_time_us },
            _ => return Err("only a backup has the time of its snapshot"),
        };
        Ok(Self {
            kind,
            gateway_version,
            schema_version,
            origin,
            epoch,
            last_position,
            last_quarantine_id,
        })
    }
}

impl From<&Table> for TableHeader {
    fn from(table: &Table) -> Self {
        let columns = table.columns.iter().map(|(name, _)| (*name).to_owned());
        Self { name: table.name.to_owned(), columns: columns.collect() }
    }
}

/// Writes a file. The caller syncs it.
pub(in crate::journal) fn export(
    source: &dyn Source,
    kind: FileKind,
    running_gateways: Vec<String>,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let header = load_header(source, kind)?;
    let mut file = FileWriter::new(output)?;
    file.write_json(BlockKind::Header, &header)?;
    let mut end = FileEnd::default();
    for table in TABLES {
        file.write_json(BlockKind::Table, &TableHeader::from(table))?;
        let mut rows = 0;
        source.stream(&table.select(source.collation()), &mut |row| {
            rows += 1;
            file.write_row(table.values(row, rows))
        })?;
        end.rows.insert(table.name.to_owned(), rows);
    }
    file.finish(&end)?;
    Ok(ExportReport { header, rows: end.rows, running_gateways })
}

/// Fails if a journal is empty and waits for an import or a restore.
pub(in crate::journal) fn check_ready(db: &dyn Database) -> Result<(), TransferError> {
    match meta::load::<Vec<u8>>(db, meta::AWAITS_IMPORT)? {
        None => Ok(()),
        Some(_) => Err(TransferError::AwaitsImport),
    }
}

fn load_header(source: &dyn Source, kind: FileKind) -> Result<FileHeader, TransferError> {
    let db = source.database();
    check_ready(db)?;
    let epoch = meta::load(db, meta::EPOCH)?.map(u64::from_be_bytes);
    let (Some(epoch), Some(origin)) = (epoch, meta::load_origin(db)?) else {
        return Err(TransferError::NoJournal);
    };
    Ok(FileHeader {
        kind,
        gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
        schema_version: schema::VERSION,
        origin,
        epoch: format!("{epoch:016x}"),
        last_position: source.last_position()?,
        last_quarantine_id: source.last_quarantine_id()?,
    })
}
