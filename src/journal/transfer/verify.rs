//! Checks a file without a journal.

use std::{collections::BTreeMap, io::Read};

use crate::journal::{
    sql::{Column, tables::meta},
    transfer::{
        error::TransferError,
        export::FileHeader,
        file::{BlockKind, FileReader},
        import::{check_schema, read_tables},
    },
};

/// A file that is complete and intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The header of the file.
    pub header: FileHeader,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// The values that identify a journal.
#[derive(Default)]
struct Identity {
    epoch: Option<String>,
    origin: Option<String>,
    has_key: bool,
}

impl Identity {
    fn read(&mut self, name: &str, value: &[u8]) {
        match name {
            meta::EPOCH => {
                let epoch = value.try_into().map(u64::from_be_bytes);
                self.epoch = epoch.ok().map(|epoch| format!("{epoch:016x}"));
            }
            meta::ORIGIN => self.origin = Some(String::from_utf8_lossy(value).into_owned()),
            meta::FINGERPRINT_KEY => self.has_key = value.len() == meta::FINGERPRINT_KEY_LENGTH,
            _ => {}
        }
    }

    fn is_of(&self, header: &FileHeader) -> bool {
        self.epoch.as_ref() == Some(&header.epoch)
            && self.origin.as_ref() == Some(&header.origin)
            && self.has_key
    }
}

/// Reads a file to its end: the checksum of each block, the tables and their columns, the order of the rows by their
/// number, the number of rows, the identity of the journal, and the end mark. Needs no memory for the rows.
///
/// # Errors
///
/// The file is damaged or incomplete, has another schema version, or cannot be read.
pub fn verify(input: &mut dyn Read) -> Result<FileReport, TransferError> {
    let mut file = FileReader::new(input)?;
    let header: FileHeader = file.json(BlockKind::Header)?;
    check_schema(&header)?;
    file.next_block()?;
    let mut identity = Identity::default();
    let rows = read_tables(&mut file, &mut |table, rows| {
        let mut last = None;
        while let Some(row) = rows.next_row()? {
            if table.is_meta()
                && let [Column::Text(name), Column::Bytes(value)] = row.as_slice()
            {
                identity.read(name, value);
            }
            let (1, Some(Column::Int(number))) = (table.key, row.first()) else { continue };
            if last.replace(*number).is_some_and(|last| last >= *number) {
                let problem = format!("the rows of the table {} have no order", table.name);
                return Err(TransferError::invalid(problem));
            }
            if table.name == "event"
                && !(1..=header.last_position).contains(&number.cast_unsigned())
            {
                return Err(TransferError::invalid("it has events after its last position"));
            }
        }
        Ok(())
    })?;
    if !identity.is_of(&header) {
        return Err(TransferError::invalid("its identity is not that of its header"));
    }
    Ok(FileReport { header, rows })
}
