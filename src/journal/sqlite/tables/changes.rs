//! Reads of changes.

use rusqlite::{Connection, params_from_iter, types::Value};

use crate::journal::sqlite::tables::{
    codes::state_code,
    devices,
    encoding::{from_json, int, uint},
    sql,
};
use crate::{
    domain::{
        change::Change, clock::Timestamp, matching::MatchKey, newtypes::ChangeId,
        state::ChangeState,
    },
    journal::{
        changes::{ChangeFilter, ChangePage, ChangeSelector},
        state_counts::StateCounts,
    },
};

/// Maximum number of rows that one page scans. With rare matches, a page may be short.
const MAX_SCANNED: usize = 20_000;
/// Bytes of stored changes after which a page ends early, so that the response stays below the 4 MiB
/// that gRPC clients accept. A response has at most three times the stored size of its changes.
const MAX_BYTES: usize = 1024 * 1024;

pub(super) fn find_row(
    connection: &Connection,
    change_id: ChangeId,
) -> rusqlite::Result<Option<i64>> {
    sql::find(
        connection,
        "SELECT id FROM change WHERE change_id = ? AND trimmed = 0",
        [change_id.as_bytes().as_slice()],
        |row| row.get(0),
    )
}

pub(super) fn change_id(connection: &Connection, row: i64) -> rusqlite::Result<ChangeId> {
    connection
        .prepare_cached("SELECT change_id FROM change WHERE id = ?")?
        .query_row([row], |row| Ok(ChangeId::from_bytes(row.get(0)?)))
}

pub(crate) fn find_change(
    connection: &Connection,
    selector: &ChangeSelector,
) -> rusqlite::Result<Option<Change>> {
    let text = |text: &str| Value::from(text.to_owned());
    let (condition, params) = match selector {
        ChangeSelector::Id(id) => ("change_id = ?", vec![id.as_bytes().to_vec().into()]),
        ChangeSelector::Request(id) => {
            ("id = (SELECT change FROM request WHERE request_id = ?)", vec![text(id.as_str())])
        }
        ChangeSelector::Key(account, key) => {
            ("account = ? AND key = ?", vec![text(account.as_str()), text(key.as_str())])
        }
    };
    let sql = format!("SELECT snapshot FROM change WHERE trimmed = 0 AND {condition}");
    sql::find(connection, &sql, params_from_iter(params), |row| {
        from_json(row.get_ref(0)?.as_str()?)
    })
}

/// Lists changes, newest first. That is the order of their rows, so nothing is sorted.
pub(crate) fn changes(
    connection: &Connection,
    filter: &ChangeFilter,
) -> rusqlite::Result<ChangePage> {
    let (sql, values) = select(filter);
    let device = filter.device.as_ref().map(MatchKey::from_id);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = ChangePage::default();
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        if page.changes.len() == filter.limit || scanned == MAX_SCANNED || bytes >= MAX_BYTES {
            return Ok(page);
        }
        scanned += 1;
        let id: i64 = row.get(0)?;
        page.next = Some(uint(id));
        let (state, created): (i64, i64) = (row.get(1)?, row.get(2)?);
        if !matches_filter(filter, state, Timestamp::from_micros(created)) {
            continue;
        }
        if let Some(key) = &device {
            let sent = devices::find_by_key(connection, id, key)?;
            if !sent.iter().any(|(_, id)| MatchKey::from_id(id).is_same(key)) {
                continue;
            }
        }
        let snapshot = row.get_ref(3)?.as_str()?;
        let change: Change = from_json(snapshot)?;
        let types = &filter.change_types;
        if types.is_empty() || types.contains(&change.change_type) {
            bytes += snapshot.len();
            page.changes.push(change);
        }
    }
    page.next = None;
    Ok(page)
}

fn select(filter: &ChangeFilter) -> (String, Vec<Value>) {
    let mut sql = "SELECT c.id, c.state, c.create_time, c.snapshot FROM change c
         WHERE c.trimmed = 0"
        .to_owned();
    let mut values = Vec::new();
    let mut and = |condition: &str, value: Value| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(account) = &filter.account {
        and("c.account = ?", account.as_str().to_owned().into());
    }
    if let Some(after) = filter.after {
        and("c.id < ?", int(after).into());
    }
    if let Some(device) = &filter.device {
        let changes = "c.id IN (SELECT change FROM device_key WHERE match_key = ?)";
        and(changes, MatchKey::from_id(device).index_key().into());
    }
    sql.push_str(" ORDER BY c.id DESC");
    (sql, values)
}

/// Checks the conditions that no index supports without a sort.
fn matches_filter(filter: &ChangeFilter, state: i64, created: Timestamp) -> bool {
    let mut states = filter.states.iter();
    (filter.states.is_empty() || states.any(|wanted| state_code(*wanted) == state))
        && filter.created_from.is_none_or(|from| created >= from)
        && filter.created_before.is_none_or(|before| created < before)
}

pub(crate) fn in_flight(connection: &Connection) -> rusqlite::Result<Vec<Change>> {
    let mut found = Vec::new();
    for state in ChangeState::ALL {
        if state.is_in_flight() {
            found.append(&mut sql::list(
                connection,
                "SELECT snapshot FROM change WHERE state = ? AND trimmed = 0 ORDER BY id",
                [state_code(state)],
                |row| from_json(row.get_ref(0)?.as_str()?),
            )?);
        }
    }
    Ok(found)
}

pub(crate) fn count_by_state(connection: &Connection) -> rusqlite::Result<StateCounts> {
    let mut counts = StateCounts::default();
    let mut statement =
        connection.prepare("SELECT count(*) FROM change WHERE trimmed = 0 AND state = ?")?;
    for state in ChangeState::ALL {
        counts.add(state, statement.query_row([state_code(state)], |row| row.get(0))?);
    }
    Ok(counts)
}
