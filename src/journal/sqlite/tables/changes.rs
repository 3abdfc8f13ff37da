//! Reads of changes.

use rusqlite::{Connection, Result, ToSql, params, params_from_iter};

use crate::{
    domain::{
        change::Change, clock::Timestamp, matching::MatchKey, newtypes::ChangeId,
        state::ChangeState,
    },
    journal::{
        ChangeFilter, ChangePage, ChangeSelector, DueChanges, StateCounts,
        record::{DEVICES_PER_BLOCK, packed_key},
        sqlite::tables::{
            CachedSql,
            columns::{HAS_SEVERAL_BLOCKS, IS_FINAL, IS_OPEN, int, state_code, state_codes, uint},
            devices::ChangeDeviceTable,
            stored_change::decode,
        },
    },
};

/// Maximum number of rows that one page scans. With rare matches, a page may be short.
const MAX_SCANNED: usize = 20_000;
/// Maximum number of changes with several blocks in which one page looks for a device, about 30 ms.
pub(crate) const MAX_DEVICE_LOOKUPS: usize = 2_000;
/// Bytes of stored changes after which a page ends early, so that the response stays below the 4 MiB
/// that gRPC clients accept. A response has at most three times the stored size of its changes.
const MAX_BYTES: usize = 1024 * 1024;

/// Returns the row of a change.
pub(super) fn find_row(db: &Connection, change_id: ChangeId) -> Result<Option<u64>> {
    db.find("SELECT id FROM change WHERE change_id = ? AND trimmed = 0", [change_id], |row| {
        row.get(0).map(uint)
    })
}

pub(crate) fn find_change(db: &Connection, selector: &ChangeSelector) -> Result<Option<Change>> {
    let (condition, values): (_, &[&dyn ToSql]) = match selector {
        ChangeSelector::Id(id) => ("change_id = ?", &[id]),
        ChangeSelector::Request(id) => {
            ("id = (SELECT change FROM request WHERE request_id = ?)", &[id])
        }
        ChangeSelector::Key(account, key) => {
            ("account = (SELECT id FROM account WHERE name = ?) AND key = ?", &[account, key])
        }
    };
    let sql = format!("SELECT record, status FROM change WHERE trimmed = 0 AND {condition}");
    db.find(&sql, values, |row| decode(row, 0))
}

/// Lists changes, newest first. That is the order of their rows, so nothing is sorted.
pub(crate) fn changes(db: &Connection, filter: &ChangeFilter) -> Result<ChangePage> {
    let device = filter.device.as_ref().map(MatchKey::from_id);
    let mut conditions = vec!["trimmed = 0".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    if let Some(account) = &filter.account {
        values.push(Box::new(account.clone()));
        let number = values.len();
        // Few changes have a device, so the index of the account is not used together with a device.
        let column = if device.is_some() { "+account" } else { "account" };
        conditions.push(format!("{column} = (SELECT id FROM account WHERE name = ?{number})"));
    }
    let is_after = filter.after.map(|after| {
        values.push(Box::new(int(after)));
        format!("id < ?{}", values.len())
    });
    conditions.extend(is_after.clone());
    // These few changes have an index, which is read without the changes.
    if !filter.states.is_empty() && filter.states.iter().all(|state| !state.is_final()) {
        let wanted = state_codes(|state| filter.states.contains(&state));
        let mut listed = vec![format!("{IS_OPEN} AND state IN ({wanted})")];
        listed.extend(is_after);
        conditions.push(format!(
            "id IN (SELECT id FROM change INDEXED BY change_open WHERE {})",
            listed.join(" AND ")
        ));
    }
    let select = "SELECT id, state, device_count, key_count, record, status FROM change";
    let conditions = conditions.join(" AND ");
    let sql = if let Some(key) = &device {
        values.push(Box::new(packed_key(key)));
        let number = values.len();
        // SQLite merges the two as they are read, so a page does not read the older changes.
        format!(
            "{select} INDEXED BY change_large WHERE {conditions} AND {HAS_SEVERAL_BLOCKS} UNION ALL
             {select} WHERE {conditions} AND id IN
               (SELECT change FROM device_key WHERE key = ?{number}) ORDER BY id DESC"
        )
    } else {
        format!("{select} WHERE {conditions} ORDER BY id DESC")
    };
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = ChangePage::default();
    let (mut scanned, mut device_lookups, mut bytes) = (0, 0, 0);
    while let Some(row) = rows.next()? {
        if page.changes.len() == filter.limit
            || scanned == MAX_SCANNED
            || device_lookups == MAX_DEVICE_LOOKUPS
            || bytes >= MAX_BYTES
        {
            return Ok(page);
        }
        scanned += 1;
        let id = uint(row.get(0)?);
        page.next = Some(id);
        if !filter.states.is_empty() && !has_state(filter, row.get(1)?) {
            continue;
        }
        if let Some(key) = &device {
            let key_count = usize::try_from(row.get::<_, i64>(3)?).unwrap_or_default();
            let devices = ChangeDeviceTable { row: id, device_count: row.get(2)?, key_count };
            device_lookups += usize::from(devices.device_count > DEVICES_PER_BLOCK);
            if devices.find(db, key)?.is_empty() {
                continue;
            }
        }
        let change = decode(row, 4)?;
        if matches_filter(filter, &change) {
            // The names of the members take about as much again.
            bytes += 2 * (row.get_ref(4)?.as_blob()?.len() + row.get_ref(5)?.as_blob()?.len());
            page.changes.push(change);
        }
    }
    page.next = None;
    Ok(page)
}

fn has_state(filter: &ChangeFilter, state: i64) -> bool {
    filter.states.iter().any(|wanted| state_code(*wanted) == state)
}

fn matches_filter(filter: &ChangeFilter, change: &Change) -> bool {
    (filter.change_types.is_empty() || filter.change_types.contains(&change.change_type))
        && filter.created_from.is_none_or(|from| change.create_time >= from)
        && filter.created_before.is_none_or(|before| change.create_time < before)
}

pub(crate) fn in_flight(db: &Connection) -> Result<Vec<Change>> {
    let states = state_codes(ChangeState::is_in_flight);
    let sql = format!(
        "SELECT record, status FROM change WHERE {IS_OPEN} AND state IN ({states}) AND trimmed = 0
         ORDER BY state, id"
    );
    db.list(&sql, [], |row| decode(row, 0))
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
        let sql = format!(
            "SELECT change_id FROM change WHERE {IS_OPEN} AND state = ? AND {since} {condition}"
        );
        db.list(&sql, params![state, time], |row| row.get(0))
    };
    let next =
        format!("SELECT min({since}) FROM change WHERE {IS_OPEN} AND state = ? AND {since} >= ?");
    Ok(DueChanges {
        due: list(&format!("< ? AND trimmed = 0 ORDER BY {since} LIMIT 100"), before)?,
        next: db.get(&next, params![state, before], |row| row.get(0))?,
        ahead_of_clock: list("> ? AND trimmed = 0 LIMIT 1000", now)?,
    })
}

/// Counts the changes in each state, in the partial indexes.
pub(crate) fn count_by_state(db: &Connection) -> Result<StateCounts> {
    let mut counts = StateCounts::default();
    for state in ChangeState::ALL {
        let condition = if state.is_final() { IS_FINAL } else { IS_OPEN };
        let sql = format!("SELECT count(*) FROM change WHERE {condition} AND state = ?");
        counts.add(state, db.get(&sql, [state], |row| row.get(0))?);
    }
    Ok(counts)
}
