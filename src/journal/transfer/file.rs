//! The format of an export and of a backup.
//!
//! A file is a title, the format version as 4 bytes, and blocks up to the block `End`. A block is its kind in 1 byte,
//! the length of its content in 4, the content, and the CRC-32 of the file up to here without the earlier checksums.
//! So a block that is missing, repeated or modified is detected when it is read. Numbers are big-endian.
//!
//! | block | content |
//! | --- | --- |
//! | `Header` | JSON: the kind of the file, the schema version, the identity and the positions of the journal |
//! | `Table` | JSON: the name and the columns of the table that the following rows belong to |
//! | `Rows` | the values of one or more whole rows |
//! | `End` | JSON: the number of rows of each table |
//!
//! A value is a byte, 0 for NULL, and a content: for 1 an integer of 8 bytes, for 2 a text and for 3 bytes, each after
//! its length in 4 bytes.
//!
//! Any change of this format, also another member in the JSON, needs another format version.

use std::io::{ErrorKind, Read, Write};

use crc32fast::Hasher;
use serde::{Serialize, de::DeserializeOwned};

use crate::journal::{
    sql::{Column, Type},
    transfer::error::TransferError,
};

/// The version of the format.
pub(super) const FORMAT_VERSION: u32 = 2;
pub(super) const TITLE: &[u8] = b"thingspace-gateway journal\n";
/// The size from which on a block of rows is written.
const BLOCK_SIZE: usize = 256 * 1024;
/// Maximum size of a block of rows. A row is far smaller.
const MAX_ROWS_SIZE: u32 = 64 * 1024 * 1024;
/// Maximum size of a block of JSON, which needs more memory than its text when it is decoded.
const MAX_JSON_SIZE: u32 = 64 * 1024;

/// The kind of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    Header = 1,
    Table = 2,
    Rows = 3,
    End = 4,
}

impl BlockKind {
    fn max_size(self) -> u32 {
        match self {
            Self::Rows => MAX_ROWS_SIZE,
            Self::Header | Self::Table | Self::End => MAX_JSON_SIZE,
        }
    }
}

/// Writes a file.
pub(super) struct FileWriter<W> {
    output: W,
    checksum: Hasher,
    rows: Vec<u8>,
}

/// Reads a file. Checks each block before it is used.
pub(super) struct FileReader<R> {
    input: R,
    checksum: Hasher,
    kind: BlockKind,
    content: Vec<u8>,
    /// The number of bytes of the content that were decoded.
    offset: usize,
}

impl<W: Write> FileWriter<W> {
    pub(super) fn new(mut output: W) -> Result<Self, TransferError> {
        let mut checksum = Hasher::new();
        for part in [TITLE, FORMAT_VERSION.to_be_bytes().as_slice()] {
            output.write_all(part)?;
            checksum.update(part);
        }
        Ok(Self { output, checksum, rows: Vec::new() })
    }

    /// Writes a block that has JSON.
    pub(super) fn write_json(
        &mut self,
        kind: BlockKind,
        content: &impl Serialize,
    ) -> Result<(), TransferError> {
        self.flush_rows()?;
        let content = serde_json::to_vec(content).map_err(std::io::Error::from)?;
        self.write_block(kind, &content)
    }

    /// Adds a row to the block of rows.
    pub(super) fn write_row<'c>(
        &mut self,
        columns: impl Iterator<Item = Result<Column<'c>, TransferError>>,
    ) -> Result<(), TransferError> {
        for column in columns {
            encode(column?, &mut self.rows)?;
        }
        if self.rows.len() >= BLOCK_SIZE {
            self.flush_rows()?;
        }
        Ok(())
    }

    /// Writes the last block.
    pub(super) fn finish(mut self, content: &impl Serialize) -> Result<W, TransferError> {
        self.write_json(BlockKind::End, content)?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn flush_rows(&mut self) -> Result<(), TransferError> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        self.write_block(BlockKind::Rows, &rows)?;
        rows.clear();
        self.rows = rows;
        Ok(())
    }

    fn write_block(&mut self, kind: BlockKind, content: &[u8]) -> Result<(), TransferError> {
        let length = u32::try_from(content.len()).ok();
        let length = length.filter(|length| *length <= kind.max_size());
        let length = length.ok_or_else(|| TransferError::invalid("a row is too large"))?;
        for part in [&[kind as u8], length.to_be_bytes().as_slice(), content] {
            self.output.write_all(part)?;
            self.checksum.update(part);
        }
        self.output.write_all(&self.checksum.clone().finalize().to_be_bytes())?;
        Ok(())
    }
}

fn encode(column: Column<'_>, out: &mut Vec<u8>) -> Result<(), TransferError> {
    let mut put = |tag, bytes: &[u8]| -> Result<(), TransferError> {
        let length = u32::try_from(bytes.len());
        let length = length.map_err(|_| TransferError::invalid("a value is too large"))?;
        out.push(tag);
        out.extend(length.to_be_bytes());
        out.extend(bytes);
        Ok(())
    };
    match column {
        Column::Null => out.push(0),
        Column::Int(value) => {
            out.push(1);
            out.extend(value.to_be_bytes());
        }
        Column::Text(text) => put(2, text.as_bytes())?,
        Column::Bytes(bytes) => put(3, bytes)?,
    }
    Ok(())
}

impl<R: Read> FileReader<R> {
    /// Reads the title and the first block.
    pub(super) fn new(mut input: R) -> Result<Self, TransferError> {
        let mut title = [0; TITLE.len()];
        let has_title = match input.read_exact(&mut title) {
            Ok(()) => title == TITLE,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error.into()),
        };
        if !has_title {
            return Err(TransferError::NotAnExport);
        }
        let mut version = [0; 4];
        read_exact(&mut input, &mut version)?;
        let found = u32::from_be_bytes(version);
        if found != FORMAT_VERSION {
            return Err(TransferError::FormatVersion(found));
        }
        let mut checksum = Hasher::new();
        checksum.update(&title);
        checksum.update(&version);
        let mut reader =
            Self { input, checksum, kind: BlockKind::Header, content: Vec::new(), offset: 0 };
        reader.next_block()?;
        Ok(reader)
    }

    /// Reads the next block, and checks it.
    pub(super) fn next_block(&mut self) -> Result<(), TransferError> {
        let mut head = [0; 5];
        read_exact(&mut self.input, &mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        self.kind = match kind {
            1 => BlockKind::Header,
            2 => BlockKind::Table,
            3 => BlockKind::Rows,
            4 => BlockKind::End,
            _ => return Err(TransferError::invalid("a block has an unknown kind")),
        };
        if length > self.kind.max_size() {
            return Err(TransferError::invalid("a block is too large"));
        }
        self.content.clear();
        self.offset = 0;
        // Allocates only for what the file has.
        let mut content = (&mut self.input).take(length.into());
        if content.read_to_end(&mut self.content)? < length as usize {
            return Err(TransferError::Truncated);
        }
        self.checksum.update(&head);
        self.checksum.update(&self.content);
        let mut stored = [0; 4];
        read_exact(&mut self.input, &mut stored)?;
        if u32::from_be_bytes(stored) != self.checksum.clone().finalize() {
            return Err(TransferError::invalid("a checksum is wrong"));
        }
        Ok(())
    }

    /// Decodes the present block, which must be of this kind.
    pub(super) fn json<T: DeserializeOwned>(&self, kind: BlockKind) -> Result<T, TransferError> {
        if self.kind != kind {
            return Err(TransferError::invalid("a block is missing"));
        }
        let decoded = serde_json::from_slice(&self.content);
        decoded.map_err(|_| TransferError::invalid("a block cannot be decoded"))
    }

    /// Goes on to the next row of the table. Returns false at its end.
    pub(super) fn next_row(&mut self) -> Result<bool, TransferError> {
        while self.kind != BlockKind::Rows || self.offset >= self.content.len() {
            self.next_block()?;
            if self.kind != BlockKind::Rows {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decodes the next row, which has values of these types.
    pub(super) fn row(
        &mut self,
        types: impl Iterator<Item = Type>,
    ) -> Result<Vec<Column<'_>>, TransferError> {
        let mut rest = self.content.get(self.offset..).unwrap_or_default();
        let columns = types.map(|expected| decode(&mut rest, expected));
        let columns = columns.collect::<Option<Vec<_>>>();
        self.offset = self.content.len() - rest.len();
        columns.ok_or_else(|| TransferError::invalid("a row has other columns than its table"))
    }

    /// Checks that the file has nothing after the present block.
    pub(super) fn check_end(&mut self) -> Result<(), TransferError> {
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(TransferError::invalid("it goes on after its end")),
        }
    }
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), TransferError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => TransferError::Truncated,
        _ => error.into(),
    })
}

fn decode<'c>(rest: &mut &'c [u8], expected: Type) -> Option<Column<'c>> {
    let tag = *take(rest, 1)?.first()?;
    match (tag, expected) {
        (0, _) => Some(Column::Null),
        (1, Type::Int) => {
            let value = take(rest, 8)?.try_into().ok()?;
            Some(Column::Int(i64::from_be_bytes(value)))
        }
        (2, Type::Text) => std::str::from_utf8(take_sized(rest)?).ok().map(Column::Text),
        (3, Type::Bytes) => take_sized(rest).map(Column::Bytes),
        _ => None,
    }
}

fn take_sized<'c>(rest: &mut &'c [u8]) -> Option<&'c [u8]> {
    let length = take(rest, 4)?.try_into().ok()?;
    take(rest, u32::from_be_bytes(length).try_into().ok()?)
}

fn take<'c>(rest: &mut &'c [u8], length: usize) -> Option<&'c [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
