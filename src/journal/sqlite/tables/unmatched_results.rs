//! Reads of results that match no device.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{clock::Timestamp, newtypes::ChangeId, state::ChangeState},
    journal::{
        UnmatchedResult,
        record::decode_result,
        sqlite::tables::{
            CachedSql,
            columns::{int, invalid, uint},
        },
    },
};

/// Lists unmatched results of open changes, and of changes that were updated since a time; those after
/// a number, in order.
pub(crate) fn list(
    db: &Connection,
    since: Timestamp,
    after: u64,
    limit: usize,
) -> Result<Vec<UnmatchedResult>> {
    db.list(
        "SELECT c.change_id, u.first_result, e.body FROM unmatched_result u
         JOIN change c ON c.id = u.change JOIN event e ON e.position = u.first_result
         WHERE u.first_result > ? AND c.trimmed = 0
           AND (c.state IN (?, ?) OR c.update_time >= ?)
         ORDER BY u.first_result LIMIT ?",
        params![int(after), ChangeState::Accepted, ChangeState::Overdue, since, int(limit)],
        |row| {
            let result = decode_result(row.get_ref(2)?.as_blob()?).map_err(invalid)?;
            Ok(UnmatchedResult {
                change_id: row.get(0)?,
                first_result: uint(row.get(1)?),
                ids: result.device_ids,
            })
        },
    )
}

/// Returns an unmatched result, if a later result has not resolved it.
pub(crate) fn find(
    db: &Connection,
    change_id: ChangeId,
    first_result: u64,
) -> Result<Option<UnmatchedResult>> {
    let sql = "SELECT e.body FROM change c
         JOIN unmatched_result u ON u.change = c.id AND u.first_result = ?2
         JOIN event e ON e.position = u.first_result
         WHERE c.change_id = ?1 AND c.trimmed = 0";
    db.find(sql, params![change_id, int(first_result)], |row| {
        let result = decode_result(row.get_ref(0)?.as_blob()?).map_err(invalid)?;
        Ok(UnmatchedResult { change_id, first_result, ids: result.device_ids })
    })
}
