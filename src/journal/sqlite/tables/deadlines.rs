//! Changes that have been in a state for too long.

use rusqlite::Connection;

use crate::journal::sqlite::tables::{codes::state_code, sql};
use crate::{
    domain::{clock::Timestamp, newtypes::ChangeId, state::ChangeState},
    journal::changes::DueChanges,
};

pub(crate) fn due_changes(
    connection: &Connection,
    state: ChangeState,
    before: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<DueChanges> {
    // The index has accept_time. Other states have few changes.
    let since = match state {
        ChangeState::Accepted | ChangeState::Overdue => "accept_time",
        _ => "update_time",
    };
    let state = state_code(state);
    let list = |condition: &str, time: Timestamp| {
        sql::list(
            connection,
            &format!("SELECT change_id FROM change WHERE state = ? AND {since} {condition}"),
            [state, time.as_micros()],
            |row| Ok(ChangeId::from_bytes(row.get(0)?)),
        )
    };
    let next = format!("SELECT min({since}) FROM change WHERE state = ? AND {since} >= ?");
    let next: Option<i64> = connection
        .prepare_cached(&next)?
        .query_row([state, before.as_micros()], |row| row.get(0))?;
    Ok(DueChanges {
        due: list(&format!("< ? AND trimmed = 0 ORDER BY {since} LIMIT 100"), before)?,
        next: next.map(Timestamp::from_micros),
        ahead_of_clock: list("> ? AND trimmed = 0 LIMIT 1000", now)?,
    })
}
