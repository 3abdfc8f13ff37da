//! Positions in the log.

use rusqlite::Connection;

use crate::journal::sqlite::tables::{
    encoding::{from_json, int, uint},
    meta, sql,
};
use crate::{
    domain::{change::Change, state::ChangeState},
    journal::engine::Coverage,
};

/// Returns the range of positions. SQLite keeps the last one also when its entry is trimmed.
pub(crate) fn coverage(connection: &Connection) -> rusqlite::Result<Coverage> {
    let last: Option<i64> = sql::find(
        connection,
        "SELECT seq FROM sqlite_sequence WHERE name = 'log_entry'",
        [],
        |row| row.get(0),
    )?;
    let trimmed = meta::load(connection, meta::TRIMMED_POSITION)?;
    Ok(Coverage { last: last.map_or(0, uint), trimmed: trimmed.map_or(0, u64::from_be_bytes) })
}

/// Makes new entries start after a position.
pub(crate) fn skip_to(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'log_entry'", [])?;
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('log_entry', ?)",
        [int(position)],
    )?;
    Ok(())
}

/// Returns the position at which a change was last sent.
pub(super) fn last_dispatch_position(
    connection: &Connection,
    change: i64,
) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, snapshot FROM timeline WHERE change = ? AND result_position IS NULL
         ORDER BY position DESC, event_index DESC",
    )?;
    let mut rows = statement.query([change])?;
    while let Some(row) = rows.next()? {
        let change: Change = from_json(row.get_ref(1)?.as_str()?)?;
        if change.state == ChangeState::Dispatched {
            return Ok(Some(uint(row.get(0)?)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
