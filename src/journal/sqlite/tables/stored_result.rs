//! A stored result.

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, Result, Row as SqlRow};

use crate::journal::{
    ResultRecord,
    sqlite::tables::{CachedSql, columns::match_from_kind},
};

/// The columns of [`decode_record`], before that of the callback's body.
pub(super) const RESULT_COLUMNS: &str = "position, kind, body, link";

/// Returns a result by its position, without the callback's body. `None` if it was trimmed.
pub(super) fn find_result(db: &Connection, position: i64) -> Result<Option<ResultRecord>> {
    let sql = format!("SELECT {RESULT_COLUMNS}, NULL FROM event WHERE position = ?");
    db.find(&sql, [position], |row| decode_record(row, &mut BytesMut::new()))
}

/// Decodes a record. The records of a page share `buffer`, so that few allocations are made.
pub(super) fn decode_record(row: &SqlRow<'_>, buffer: &mut BytesMut) -> Result<ResultRecord> {
    let mut bytes = |column| -> Result<Bytes> {
        buffer.extend_from_slice(row.get_ref(column)?.as_blob_or_null()?.unwrap_or_default());
        Ok(buffer.split().freeze())
    };
    Ok(ResultRecord {
        body: bytes(2)?,
        link: bytes(3)?,
        raw_json: bytes(4)?,
        matched: match_from_kind(row.get(1)?),
        resolved_device: None,
    })
}
