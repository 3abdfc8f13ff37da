//! Checks a file without a journal.

use std::{collections::BTreeMap, io::Read};

use crate::journal::{
    sql::Column,
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

/// Reads a file to its end: the checksum of each block, the tables and their columns, the order of the rows by their
/// number, the number of rows, and the end mark. Needs no memory for the rows.
///
/// # Errors
///
/// The file is damaged or incomplete, has another schema version, or cannot be read.
pub fn verify(input: &mut dyn Read) -> Result<FileReport, TransferError> {
    let mut file = FileReader::new(input)?;
    let header: FileHeader = file.json(BlockKind::Header)?;
    check_schema(&header)?;
    file.next_block()?;
    let rows = read_tables(&mut file, &mut |table, rows| {
        let mut last = None;
        while let Some(row) = rows.next_row()? {
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
    Ok(FileReport { header, rows })
}
