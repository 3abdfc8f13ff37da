//! A stored result.

use bytes::{Bytes, BytesMut};

use crate::journal::{
    ResultRecord,
    sql::{Database, Result, Row, tables::columns::match_from_kind, value::values},
};

/// The columns of [`decode_record`], before that of the callback's body.
pub(super) const RESULT_COLUMNS: &str = "position, kind, body, link";

/// Returns a result by its position, without the callback's body. `None` if it was trimmed.
pub(super) fn find_result(db: &dyn Database, position: i64) -> Result<Option<ResultRecord>> {
    let sql = format!("SELECT {RESULT_COLUMNS}, NULL FROM event WHERE position = ?");
    db.find(&sql, &values![position], |row| decode_record(row, &mut BytesMut::new()))
}

/// Decodes a record. The records of a page share `buffer`, so that few allocations are made.
pub(super) fn decode_record(row: &dyn Row, buffer: &mut BytesMut) -> Result<ResultRecord> {
    let mut bytes = |column| -> Result<Bytes> {
        buffer.extend_from_slice(row.get::<Option<&[u8]>>(column)?.unwrap_or_default());
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
