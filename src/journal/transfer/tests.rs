use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    export::{FileEnd, TableHeader},
    file::{BlockKind, FileReader, FileWriter, TITLE},
    tables::TABLES,
    *,
};
use crate::{
    domain::clock::{Clock, Timestamp},
    journal::{
        CheckReport, Journal, Origin,
        conformance::every_row::{accept_change, check_continuation, fill, read_all, success_of},
        sql::{Column, Type, tables::schema},
        sqlite::{JournalOpenError, OpenFailure, SqliteOptions, open, transfer as sqlite},
    },
    telemetry::Instruments,
};

/// A directory for an embedded journal.
pub(in crate::journal) struct Directory(TempDir);

/// The time of all backups.
pub(in crate::journal) const NOON: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
pub(in crate::journal) struct NoonClock;

impl Clock for NoonClock {
    fn now(&self) -> Timestamp {
        NOON
    }
}

impl Directory {
    pub(in crate::journal) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(in crate::journal) fn path(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    pub(in crate::journal) fn open(&self) -> Arc<dyn Journal> {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<Arc<dyn Journal>, JournalOpenError> {
        let options = SqliteOptions {
            dir: self.path(),
            origin: Origin::sandbox(),
            allow_network_filesystem: false,
            instruments: Instruments::noop(),
        };
        open(&options)
    }

    pub(in crate::journal) fn export(&self) -> Vec<u8> {
        let mut file = Vec::new();
        sqlite::export(&self.path(), false, &mut file).unwrap();
        file
    }

    pub(in crate::journal) fn import(&self, file: &[u8]) -> Result<ImportReport, TransferError> {
        self.import_for(Purpose::Move, file)
    }

    pub(in crate::journal) fn import_for(
        &self,
        purpose: Purpose<'_>,
        mut file: &[u8],
    ) -> Result<ImportReport, TransferError> {
        sqlite::import(&self.path(), false, &Origin::sandbox(), purpose, &mut file)
    }

    pub(in crate::journal) fn back_up(&self) -> Result<(Vec<u8>, ExportReport), TransferError> {
        let mut file = Vec::new();
        let limit = TimeLimit::start(Duration::from_secs(60));
        let report = sqlite::back_up(&self.path(), false, &NoonClock, limit, None, &mut file);
        report.map(|report| (file, report))
    }

    pub(in crate::journal) fn check(&self) -> Result<CheckReport, TransferError> {
        sqlite::check(&self.path(), false, TimeLimit::start(Duration::from_secs(60)))
    }
}

/// Returns a file with rows of every kind, and all that clients can read of its journal.
pub(in crate::journal) async fn filled_file() -> (Vec<u8>, String) {
    let directory = Directory::new();
    let journal = directory.open();
    fill(&*journal).await;
    let content = read_all(&*journal).await;
    journal.close().await;
    drop(journal);
    (directory.export(), content)
}

/// Checks that a journal opened after an import has the content of the exported one, and goes on.
pub(in crate::journal) async fn check_imported(journal: Arc<dyn Journal>, content: &str) {
    assert_eq!(read_all(&*journal).await, content);
    check_continuation(&*journal).await;
    journal.close().await;
}

/// The columns of each table in a file that have a value other than NULL in some row.
fn columns_with_values(file: &[u8]) -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut reader = FileReader::new(file).unwrap();
    let mut found = BTreeMap::new();
    reader.next_block().unwrap();
    for table in TABLES {
        let header: TableHeader = reader.json(BlockKind::Table).unwrap();
        assert_eq!(header, TableHeader::from(table));
        let mut columns = Vec::new();
        while reader.next_row().unwrap() {
            let row = reader.row(table.columns.iter().map(|(_, column)| *column)).unwrap();
            for ((name, _), value) in table.columns.iter().zip(row) {
                if value != Column::Null && !columns.contains(name) {
                    columns.push(name);
                }
            }
        }
        found.insert(table.name, columns);
    }
    reader.json::<FileEnd>(BlockKind::End).unwrap();
    found
}

#[test]
fn the_tables_are_those_of_the_schema() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(schema::TABLES).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let mut names = db.prepare(sql).unwrap();
    let names = names.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let names: Vec<String> = names.map(Result::unwrap).collect();
    assert_eq!(names, TABLES.iter().map(|table| table.name).collect::<Vec<_>>());
    for table in TABLES {
        let sql = format!("SELECT name, type, pk FROM pragma_table_info('{}')", table.name);
        let mut columns = db.prepare(&sql).unwrap();
        let columns = columns.query_map([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?))
        });
        let columns: Vec<_> = columns.unwrap().map(Result::unwrap).collect();
        let expected = table.columns.iter().zip(1_u32..).map(|((name, column), number)| {
            let column = match column {
                Type::Int => "INTEGER",
                Type::Text => "TEXT",
                Type::Bytes => "BLOB",
            };
            let key = if number as usize <= table.key { number } else { 0 };
            ((*name).to_owned(), column.to_owned(), key)
        });
        assert_eq!(columns, expected.collect::<Vec<_>>(), "{}", table.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_journal_has_the_same_content_and_goes_on() {
    let (file, content) = filled_file().await;
    for (table, columns) in columns_with_values(&file) {
        let table = TABLES.iter().find(|one| one.name == table).unwrap();
        assert_eq!(columns.len(), table.columns.len(), "{}: {columns:?}", table.name);
    }
    let directory = Directory::new();
    let report = directory.import(&file).unwrap();
    assert_eq!(report.header.last_quarantine_id, 3);
    assert!(directory.export() == file, "another export has the same bytes");
    check_imported(directory.open(), &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_whose_event_was_trimmed_is_not_used_again() {
    let directory = Directory::new();
    let journal = directory.open();
    fill(&*journal).await;
    journal.close().await;
    drop(journal);
    let path = directory.path().join("journal.db");
    let db = Connection::open(path).unwrap();
    db.execute("INSERT INTO meta VALUES ('skipped_position', ?)", [10_000_i64.to_be_bytes()])
        .unwrap();
    drop(db);
    let file = directory.export();
    let imported = Directory::new();
    assert_eq!(imported.import(&file).unwrap().header.last_position, 10_000);
    assert!(imported.export() == file);
    check_continuation(&*imported.open()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_empty_journal_is_imported_into() {
    let (file, content) = filled_file().await;
    let other = Directory::new();
    let journal = other.open();
    let in_use = other.import(&file);
    assert!(matches!(in_use, Err(TransferError::Open { is_final: false, .. })), "{in_use:?}");
    journal.close().await;
    drop(journal);
    // A journal that was only opened is replaced, also after an import that has failed.
    assert!(other.import(&file[..file.len() - 1]).is_err());
    other.import(&file).unwrap();
    let again = other.import(&file);
    assert!(matches!(again, Err(TransferError::NotEmpty(_))), "{again:?}");
    check_imported(other.open(), &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_origin_or_schema_is_rejected() {
    let (file, _) = filled_file().await;
    let directory = Directory::new();
    let url = Origin::from_url(&"https://thingspace.example".parse().unwrap());
    let other =
        sqlite::import(&directory.path(), false, &url, Purpose::Move, &mut &*file).unwrap_err();
    assert!(matches!(other, TransferError::OtherOrigin(_)) && other.is_final());

    let mut header: FileHeader = FileReader::new(&*file).unwrap().json(BlockKind::Header).unwrap();
    header.schema_version += 1;
    let mut newer = FileWriter::new(Vec::new()).unwrap();
    newer.write_json(BlockKind::Header, &header).unwrap();
    let newer = newer.finish(&FileEnd::default()).unwrap();
    let rejected = directory.import(&newer);
    assert!(matches!(rejected, Err(TransferError::SchemaVersion { .. })), "{rejected:?}");
    assert!(matches!(directory.import(b"SQLite format 3\0"), Err(TransferError::NotAnExport)));
    directory.import(&file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_truncated_file_imports_nothing() {
    let (file, content) = filled_file().await;
    let directory = Directory::new();
    let blocks = block_ends(&file);
    assert!(blocks.len() > 2 * TABLES.len());
    let mut damaged: Vec<Vec<u8>> = Vec::new();
    let mut start = 0;
    for &end in &blocks {
        // A bit of the kind, the length, the content and the checksum of each block.
        for offset in [start, start + 4, usize::midpoint(start, end), end - 1] {
            let mut flipped = file.clone();
            flipped[offset] ^= 1;
            damaged.push(flipped);
        }
        if end < file.len() {
            damaged.push(file[..end].to_vec());
        }
        damaged.push(file[..end - 1].to_vec());
        // Without the block, and with it twice.
        damaged.push([&file[..start], &file[end..]].concat());
        damaged.push([&file[..end], &file[start..]].concat());
        start = end;
    }
    damaged.push([&*file, b"x"].concat());
    for (number, damaged) in damaged.iter().enumerate() {
        for purpose in [Purpose::Move, Purpose::Restore { updates: &[], allow_unsound: false }] {
            let rejected = directory.import_for(purpose, damaged);
            assert!(rejected.is_err(), "{number}");
            assert!(!matches!(rejected, Err(TransferError::NotEmpty(_))), "{number}: {rejected:?}");
        }
        assert!(verify(&mut &**damaged).is_err(), "{number}");
    }
    assert_eq!(verify(&mut &*file).unwrap().rows["event"], 43);
    // A gateway with the empty journal would send repeated calls again.
    let Err(error) = directory.try_open() else { panic!("it opens") };
    assert!(matches!(error.failure, OpenFailure::AwaitsImport), "{error}");
    assert!(matches!(directory.check(), Err(TransferError::AwaitsImport)));
    assert!(matches!(directory.back_up(), Err(TransferError::AwaitsImport)));
    directory.import(&file).unwrap();
    check_imported(directory.open(), &content).await;
}

/// The marker of the journal cannot be written, because a directory has the name of its new file.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_after_its_commit_is_completed_by_a_repeated_one() {
    let (file, content) = filled_file().await;
    let (other, _) = filled_file().await;
    let directory = Directory::new();
    let obstacle = directory.path().join("journal.marker.new");
    fs::create_dir_all(&obstacle).unwrap();
    for _ in 0..2 {
        let failed = directory.import(&file);
        assert!(matches!(failed, Err(TransferError::NotFinished(_))), "{failed:?}");
        let Err(error) = directory.try_open() else { panic!("it opens") };
        assert!(matches!(error.failure, OpenFailure::AwaitsImport), "{error}");
        assert!(matches!(directory.check(), Err(TransferError::AwaitsImport)));
        assert!(matches!(directory.back_up(), Err(TransferError::AwaitsImport)));
    }
    fs::remove_dir(&obstacle).unwrap();
    let refused = directory.import(&other);
    assert!(matches!(refused, Err(TransferError::FilledFromOther)), "{refused:?}");
    let restore = Purpose::Restore { updates: &[], allow_unsound: false };
    let refused = directory.import_for(restore, &file);
    assert!(matches!(refused, Err(TransferError::FilledFromOther)), "{refused:?}");
    let cut = directory.import(&file[..file.len() - 1]);
    assert!(matches!(cut, Err(TransferError::Truncated)), "{cut:?}");
    let report = directory.import(&file).unwrap();
    assert_eq!(report.rows["event"], 43);
    assert_eq!(report.epoch, report.header.epoch);
    let again = directory.import(&file);
    assert!(matches!(again, Err(TransferError::NotEmpty(_))), "{again:?}");
    check_imported(directory.open(), &content).await;
}

/// The journal that a gateway has created has an epoch and a key, also while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_waits_for_a_file_is_neither_sound_nor_backed_up() {
    let (file, content) = filled_file().await;
    let directory = Directory::new();
    directory.open().close().await;
    assert_eq!(directory.check().unwrap().findings, vec![]);
    let rejected = directory.import(&file[..file.len() / 2]);
    assert!(matches!(rejected, Err(TransferError::Truncated)), "{rejected:?}");
    assert!(matches!(directory.check(), Err(TransferError::AwaitsImport)));
    assert!(matches!(directory.back_up(), Err(TransferError::AwaitsImport)));
    let exported = sqlite::export(&directory.path(), false, &mut Vec::new());
    assert!(matches!(exported, Err(TransferError::AwaitsImport)), "{exported:?}");
    directory.import(&file).unwrap();
    check_imported(directory.open(), &content).await;
}

/// A file with valid checksums can have any JSON. Decoding it needs more memory than the file.
#[tokio::test(flavor = "multi_thread")]
async fn json_of_a_file_is_small_and_has_no_unknown_members() {
    let (file, _) = filled_file().await;
    let header: FileHeader = FileReader::new(&*file).unwrap().json(BlockKind::Header).unwrap();
    let with_header = |header: &serde_json::Value| {
        let mut file = FileWriter::new(Vec::new()).unwrap();
        file.write_json(BlockKind::Header, header).unwrap();
        verify(&mut &*file.finish(&FileEnd::default()).unwrap()).unwrap_err().to_string()
    };
    let mut json = serde_json::to_value(&header).unwrap();
    assert_eq!(serde_json::from_value::<FileHeader>(json.clone()).unwrap(), header);
    assert!(
        with_header(&json).contains("a table is missing") || with_header(&json).contains("a block")
    );
    json["kind"] = "backup".into();
    assert!(with_header(&json).contains("cannot be decoded"), "a backup has a time");
    json["kind"] = "export".into();
    json["other"] = serde_json::json!([[], [], []]);
    assert!(with_header(&json).contains("cannot be decoded"), "an unknown member");

    for kind in [BlockKind::Header, BlockKind::Table, BlockKind::End] {
        let mut file = FileWriter::new(Vec::new()).unwrap();
        let rejected = file.write_json(kind, &" ".repeat(64 * 1024));
        assert!(matches!(rejected, Err(TransferError::Damaged(_))), "{rejected:?}");
        // The content is not read.
        let mut file = block_of(kind, 64 * 1024 + 1);
        assert!(matches!(FileReader::new(&*file), Err(TransferError::Damaged(_))));
        file = block_of(kind, 64 * 1024);
        assert!(matches!(FileReader::new(&*file), Err(TransferError::Truncated)));
    }
}

/// Returns the beginning of a file, with the head of a block.
fn block_of(kind: BlockKind, length: u32) -> Vec<u8> {
    let title = FileWriter::new(Vec::new()).unwrap().finish(&FileEnd::default()).unwrap();
    [&title[..TITLE.len() + 4], &[kind as u8], &length.to_be_bytes()].concat()
}

/// Returns the ends of the title and of each block.
fn block_ends(file: &[u8]) -> Vec<usize> {
    let title = TITLE.len() + 4;
    let mut ends = vec![title];
    while let Some(length) =
        file.get(ends[ends.len() - 1] + 1..).and_then(|rest| rest.first_chunk())
    {
        let length = u32::from_be_bytes(*length) as usize;
        ends.push(ends[ends.len() - 1] + 5 + length + 4);
    }
    assert_eq!(ends.last(), Some(&file.len()));
    ends
}

#[test]
fn an_export_without_a_journal_creates_nothing() {
    let directory = Directory::new();
    let missing = sqlite::export(&directory.path(), false, &mut Vec::new());
    assert!(matches!(missing, Err(TransferError::NoJournal)), "{missing:?}");
    assert!(!directory.path().exists());
}

/// Reads a file to its end.
fn read_to_end(file: &[u8]) -> Result<(), TransferError> {
    let mut reader = FileReader::new(file)?;
    let _ = reader.json::<FileHeader>(BlockKind::Header);
    loop {
        reader.next_block()?;
        for table in TABLES {
            let _ = reader.row(table.columns.iter().map(|(_, column)| *column));
        }
        if reader.json::<FileEnd>(BlockKind::End).is_ok() {
            return reader.check_end();
        }
    }
}

proptest! {
    /// Also content with a valid checksum, and a length of gigabytes, neither panics nor allocates much.
    #[test]
    fn random_bytes_are_rejected(
        content in prop::collection::vec(any::<u8>(), 0..200),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut file = FileWriter::new(Vec::new()).unwrap();
        file.write_json(BlockKind::Rows, &String::from_utf8_lossy(&content)).unwrap();
        let file = file.finish(&FileEnd::default()).unwrap();
        prop_assert!(read_to_end(&file).is_ok());
        let cut = file.len() - FileEnd::default_length();
        prop_assert!(read_to_end(&[&file[..cut], &rest].concat()).is_err());
        prop_assert!(read_to_end(&rest).is_err());
        let mut blocks = file[..TITLE.len() + 4].to_vec();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&blocks);
        for kind in [1, 3, 3] {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            let block = [&[kind], &length[..], &content].concat();
            checksum.update(&block);
            blocks.extend(block);
            blocks.extend(checksum.clone().finalize().to_be_bytes());
        }
        prop_assert!(matches!(read_to_end(&blocks), Err(TransferError::Truncated)));
        prop_assert!(read_to_end(&[&blocks[..], &[3, 255, 255, 255, 255]].concat()).is_err());
        prop_assert!(read_to_end(&[&blocks[..], &[3, 3, 255, 255, 255]].concat()).is_err());
    }
}

impl FileEnd {
    /// The size of the block of an empty file.
    fn default_length() -> usize {
        5 + serde_json::to_vec(&Self::default()).unwrap().len() + 4
    }
}

/// Stores results of changes with up to 10,000 devices.
pub(in crate::journal) async fn store_results(journal: &Arc<dyn Journal>, count: usize) {
    for (number, first) in (0..count).step_by(10_000).enumerate() {
        let devices = first..count.min(first + 10_000);
        let request = format!("r-{number}");
        accept_change(&**journal, &format!("key {number}"), &request, devices.clone()).await;
        let devices: Vec<usize> = devices.collect();
        for devices in devices.chunks(500) {
            let stored =
                devices.iter().map(|device| journal.store_callback(success_of(&request, *device)));
            for stored in join_all(stored).await {
                stored.unwrap();
            }
        }
    }
}
