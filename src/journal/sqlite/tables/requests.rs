//! ThingSpace's requests.

use std::collections::VecDeque;

use rusqlite::{Connection, params, types::Type};

use crate::journal::sqlite::tables::{changes, encoding::uint, positions, sql};
use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{ChangeId, RequestId},
    },
    failpoints,
};

/// The row of a request, and the row of the change that it is linked to.
pub(super) struct RequestRow {
    pub(super) id: i64,
    pub(super) change: Option<i64>,
}

/// Returns the row of a request. Creates it if there is none: results can arrive before their change
/// is accepted, or belong to no change.
pub(super) fn find_or_insert(
    connection: &Connection,
    request_id: &RequestId,
    now: Timestamp,
) -> rusqlite::Result<RequestRow> {
    let row = sql::find(
        connection,
        "SELECT id, change FROM request WHERE request_id = ?",
        [request_id.as_str()],
        |row| Ok(RequestRow { id: row.get(0)?, change: row.get(1)? }),
    )?;
    if let Some(row) = row {
        return Ok(row);
    }
    let id = sql::insert(
        connection,
        "INSERT INTO request (request_id, last_result_time) VALUES (?, ?)",
        params![request_id.as_str(), now.as_micros()],
    )?;
    Ok(RequestRow { id, change: None })
}

/// Lists the unattributed requests whose first result was stored after a change was sent, newest first.
/// If there are more than `limit`, lists the oldest: the change's own request is likely among them.
pub(crate) fn unattributed_requests(
    connection: &Connection,
    change: ChangeId,
    limit: usize,
) -> rusqlite::Result<Vec<RequestId>> {
    let dispatched = match changes::find_row(connection, change)? {
        Some(id) => positions::last_dispatch_position(connection, id)?,
        None => None,
    };
    let Some(dispatched) = dispatched else {
        return Ok(Vec::new());
    };
    // Rows are in the order of the requests' first results.
    let mut statement = connection.prepare_cached(
        "SELECT r.request_id, (SELECT min(position) FROM log_entry WHERE request = r.id)
         FROM request r NOT INDEXED WHERE r.change IS NULL ORDER BY r.id DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut found = VecDeque::new();
    while let Some(row) = rows.next()? {
        let Some(first_result) = row.get::<_, Option<i64>>(1)? else {
            continue;
        };
        let is_earlier =
            uint::<u64>(first_result) < dispatched && !failpoints::is_active("clock-times");
        if is_earlier {
            break;
        }
        if found.len() == limit {
            found.pop_front();
        }
        let request = RequestId::parse(row.get::<_, String>(0)?).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
        })?;
        found.push_back(request);
    }
    Ok(found.into())
}
