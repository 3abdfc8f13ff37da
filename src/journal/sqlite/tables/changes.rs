//! Reads of changes.

use rusqlite::{Connection, Result, ToSql, params, params_from_iter};

use crate::{
    domain::{
        change::Change, clock::Timestamp, matching::MatchKey, newtypes::ChangeId,
        state::ChangeState,
    },
    journal::{
        ChangeFilter, ChangePage, ChangeSelector, DueChanges, StateCounts,
        sqlite::tables::{
            CachedSql,
            columns::{Json, int, state_code, state_codes, uint},
            devices,
        },
    },
};

/// Maximum number of rows that one page scans. With rare matches, a page may be short.
const MAX_SCANNED: usize = 20_000;
/// Bytes of stored changes after which a page ends early, so that the response stays below the 4 MiB
/// that gRPC clients accept. A response has at most three times the stored size of its changes.
const MAX_BYTES: usize = 1024 * 1024;

/// Returns the row of a change.
pub(super) fn find_row(db: &Connection, change_id: ChangeId) -> Result<Option<i64>> {
    db.find("SELECT id FROM change WHERE change_id = ? AND trimmed = 0", [change_id], |row| {
        row.get(0)
    })
}

pub(crate) fn find_change(db: &Connection, selector: &ChangeSelector) -> Result<Option<Change>> {
    let (condition, values): (_, &[&dyn ToSql]) = match selector {
        ChangeSelector::Id(id) => ("change_id = ?", &[id]),
        ChangeSelector::Request(id) => {
            ("id = (SELECT change FROM request WHERE request_id = ?)", &[id])
        }
        ChangeSelector::Key(account, key) => ("account = ? AND key = ?", &[account, key]),
    };
    let sql = format!("SELECT snapshot FROM change WHERE trimmed = 0 AND {condition}");
    db.find(&sql, values, |row| row.get(0).map(|Json(change)| change))
}

/// Lists changes, newest first. That is the order of their rows, so nothing is sorted.
pub(crate) fn changes(db: &Connection, filter: &ChangeFilter) -> Result<ChangePage> {
    let device = filter.device.as_ref().map(MatchKey::from_id);
    let mut sql =
        "SELECT id, state, create_time, snapshot FROM change WHERE trimmed = 0".to_owned();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut and = |condition: &str, value| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(account) = &filter.account {
        and("account = ?", Box::new(account.clone()));
    }
    if let Some(after) = filter.after {
        and("id < ?", Box::new(int(after)));
    }
    if let Some(key) = &device {
        let changes = "id IN (SELECT change FROM device_key WHERE match_key = ?)";
        and(changes, Box::new(key.index_key()));
    }
    sql.push_str(" ORDER BY id DESC");
    let mut statement = db.prepare_cached(&sql)?;
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
        if !matches_filter(filter, row.get(1)?, row.get(2)?) {
            continue;
        }
        if let Some(key) = &device {
            let sent = devices::find_by_key(db, id, key)?;
            if !sent.iter().any(|(_, id)| MatchKey::from_id(id).is_same(key)) {
                continue;
            }
        }
        let Json(change) = row.get::<_, Json<Change>>(3)?;
        let types = &filter.change_types;
        if types.is_empty() || types.contains(&change.change_type) {
            bytes += row.get_ref(3)?.as_str()?.len();
            page.changes.push(change);
        }
    }
    page.next = None;
    Ok(page)
}

/// Checks the conditions that no index supports without a sort.
fn matches_filter(filter: &ChangeFilter, state: i64, created: Timestamp) -> bool {
    let mut states = filter.states.iter();
    (filter.states.is_empty() || states.any(|wanted| state_code(*wanted) == state))
        && filter.created_from.is_none_or(|from| created >= from)
        && filter.created_before.is_none_or(|before| created < before)
}

pub(crate) fn in_flight(db: &Connection) -> Result<Vec<Change>> {
    let states = state_codes(ChangeState::is_in_flight);
    let sql = format!(
        "SELECT snapshot FROM change WHERE state IN ({states}) AND trimmed = 0 ORDER BY state, id"
    );
    db.list(&sql, [], |row| row.get(0).map(|Json(change)| change))
}

pub(crate) fn due_changes(
    db: &Connection,
    state: ChangeState,
    before: Timestamp,
    now: Timestamp,
) -> Result<DueChanges> {
    // The index has accept_time. Other states have few changes.
    let since = match state {
        ChangeState::Accepted | ChangeState::Overdue => "accept_time",
        _ => "update_time",
    };
    let list = |condition: &str, time: Timestamp| {
        let sql = format!("SELECT change_id FROM change WHERE state = ? AND {since} {condition}");
        db.list(&sql, params![state, time], |row| row.get(0))
    };
    let next = format!("SELECT min({since}) FROM change WHERE state = ? AND {since} >= ?");
    Ok(DueChanges {
        due: list(&format!("< ? AND trimmed = 0 ORDER BY {since} LIMIT 100"), before)?,
        next: db.get(&next, params![state, before], |row| row.get(0))?,
        ahead_of_clock: list("> ? AND trimmed = 0 LIMIT 1000", now)?,
    })
}

pub(crate) fn count_by_state(db: &Connection) -> Result<StateCounts> {
    let mut counts = StateCounts::default();
    for state in ChangeState::ALL {
        let sql = "SELECT count(*) FROM change WHERE trimmed = 0 AND state = ?";
        counts.add(state, db.get(sql, [state], |row| row.get(0))?);
    }
    Ok(counts)
}
