//! Reads of results that match no device.

use crate::{
    domain::{clock::Timestamp, newtypes::ChangeId, state::ChangeState},
    journal::{
        UnmatchedResult,
        record::decode_result,
        sql::{Database, Result, value::values},
    },
};

/// Lists unmatched results of open changes, and of changes that were updated since a time; those after
/// a number, in order.
pub(in crate::journal::sql) fn list(
    db: &dyn Database,
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
        &values![after, ChangeState::Accepted, ChangeState::Overdue, since, limit],
        |row| {
            let result = decode_result(row.get::<&[u8]>(2)?)?;
            Ok(UnmatchedResult {
                change_id: row.get(0)?,
                first_result: row.get(1)?,
                ids: result.device_ids,
            })
        },
    )
}

/// Returns an unmatched result, if a later result has not resolved it.
pub(in crate::journal::sql) fn find(
    db: &dyn Database,
    change_id: ChangeId,
    first_result: u64,
) -> Result<Option<UnmatchedResult>> {
    let sql = "SELECT e.body FROM change c
         JOIN unmatched_result u ON u.change = c.id AND u.first_result = ?2
         JOIN event e ON e.position = u.first_result
         WHERE c.change_id = ?1 AND c.trimmed = 0";
    db.find(sql, &values![&change_id, first_result], |row| {
        let result = decode_result(row.get::<&[u8]>(0)?)?;
        Ok(UnmatchedResult { change_id, first_result, ids: result.device_ids })
    })
}
