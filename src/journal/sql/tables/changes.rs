//! Reads of changes.

use std::ops::ControlFlow;

use crate::{
    domain::{
        change::Change, clock::Timestamp, matching::MatchKey, newtypes::ChangeId,
        state::ChangeState,
    },
    journal::{
        ChangeFilter, ChangePage, ChangeSelector, DueChanges, StateCounts,
        record::{DEVICES_PER_BLOCK, packed_key},
        sql::{
            Database, Result, Row, Value,
            tables::{
                columns::{HAS_SEVERAL_BLOCKS, IS_FINAL, IS_OPEN, state_codes},
                devices::ChangeDeviceTable,
                stored_change::decode,
            },
            value::{state_code, values},
        },
    },
};

/// Maximum number of rows that one page scans. With rare matches, a page may be short.
const MAX_SCANNED: usize = 20_000;
/// Maximum number of changes with several blocks in which one page looks for a device, about 30 ms.
pub(in crate::journal) const MAX_DEVICE_LOOKUPS: usize = 2_000;
/// Bytes of stored changes after which a page ends early, so that the response stays below the 4 MiB
/// that gRPC clients accept. A response has at most three times the stored size of its changes.
const MAX_BYTES: usize = 1024 * 1024;

/// Minimum number of rows that one query of a page reads.
const MIN_ROWS: usize = 16;
/// Maximum number of rows that one query of a page reads.
const MAX_ROWS: usize = 256;

/// Returns the row of a change.
pub(super) fn find_row(db: &dyn Database, change_id: ChangeId) -> Result<Option<u64>> {
    let sql = "SELECT id FROM change WHERE change_id = ? AND trimmed = 0";
    db.find(sql, &values![&change_id], |row| row.get(0))
}

pub(in crate::journal::sql) fn find_change(
    db: &dyn Database,
    selector: &ChangeSelector,
) -> Result<Option<Change>> {
    let (condition, values) = match selector {
        ChangeSelector::Id(id) => ("change_id = ?", vec![id.into()]),
        ChangeSelector::Request(id) => {
            ("id = (SELECT change FROM request WHERE request_id = ?)", vec![id.into()])
        }
        ChangeSelector::Key(account, key) => (
            "account = (SELECT id FROM account WHERE name = ?) AND key = ?",
            vec![account.into(), key.into()],
        ),
    };
    let sql = format!("SELECT record, status FROM change WHERE trimmed = 0 AND {condition}");
    db.find(&sql, &values, |row| decode(row, 0))
}

/// Lists changes, newest first. That is the order of their rows, so nothing is sorted.
pub(in crate::journal::sql) fn changes(
    db: &dyn Database,
    filter: &ChangeFilter,
) -> Result<ChangePage> {
    let device = filter.device.as_ref().map(MatchKey::from_id);
    let sql = list_statement(filter, device.is_some());
    let mut page = ChangePage { next: filter.after, ..ChangePage::default() };
    let (mut scanned, mut device_lookups, mut bytes) = (0, 0, 0);
    loop {
        let wanted = (filter.limit + 1).saturating_sub(page.changes.len());
        let limit = wanted.clamp(MIN_ROWS, MAX_ROWS);
        let mut values: Vec<Value<'_>> =
            values![page.next.unwrap_or(u64::MAX), limit].into_iter().collect();
        values.extend(filter.account.as_ref().map(Value::from));
        values.extend(device.as_ref().map(|key| packed_key(key).into()));
        let (mut rows, mut is_full) = (0, false);
        db.query(&sql, &values, &mut |row| {
            is_full = scanned == MAX_SCANNED
                || device_lookups == MAX_DEVICE_LOOKUPS
                || bytes >= MAX_BYTES;
            if is_full {
                return Ok(ControlFlow::Break(()));
            }
            (rows, scanned) = (rows + 1, scanned + 1);
            let id = row.get(0)?;
            let before = page.next.replace(id);
            if !filter.states.is_empty() && !has_state(filter, row.get(1)?) {
                return Ok(ControlFlow::Continue(()));
            }
            if let Some(key) = &device {
                let (device_count, key_count) = (row.get(2)?, row.get(3)?);
                let devices = ChangeDeviceTable { row: id, device_count, key_count };
                device_lookups += usize::from(device_count > DEVICES_PER_BLOCK);
                if devices.find(db, key)?.is_empty() {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let change = decode(row, 4)?;
            if matches_filter(filter, &change) {
                // Only a change that matches makes a next page: others may be those that the caller may not see.
                is_full = page.changes.len() == filter.limit;
                if is_full {
                    page.next = before;
                    return Ok(ControlFlow::Break(()));
                }
                // The names of the members take about as much again.
                bytes += 2 * (row.get::<&[u8]>(4)?.len() + row.get::<&[u8]>(5)?.len());
                page.changes.push(change);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if is_full {
            return Ok(page);
        }
        if rows < limit {
            page.next = None;
            return Ok(page);
        }
    }
}

/// Returns the statement of a list. Its parameters are the row before which the page starts, the number of rows, and
/// the account and the device of the filter.
fn list_statement(filter: &ChangeFilter, has_device: bool) -> String {
    let mut conditions = vec!["trimmed = 0".to_owned(), "id < ?1".to_owned()];
    if filter.account.is_some() {
        // Few changes have a device, so the index of the account is not used together with a device.
        let column = if has_device { "+account" } else { "account" };
        conditions.push(format!("{column} = (SELECT id FROM account WHERE name = ?3)"));
    }
    // These few changes have an index, which is read without the changes.
    if !filter.states.is_empty() && filter.states.iter().all(|state| !state.is_final()) {
        let wanted = state_codes(|state| filter.states.contains(&state));
        conditions.push(format!(
            "id IN (SELECT id FROM change INDEXED BY change_open
               WHERE {IS_OPEN} AND state IN ({wanted}) AND id < ?1)"
        ));
    }
    let select = "SELECT id, state, device_count, key_count, record, status FROM change";
    let conditions = conditions.join(" AND ");
    if has_device {
        let number = if filter.account.is_some() { 4 } else { 3 };
        // SQLite merges the two as they are read, so a page does not read the older changes.
        format!(
            "{select} INDEXED BY change_large WHERE {conditions} AND {HAS_SEVERAL_BLOCKS} UNION ALL
             {select} WHERE {conditions} AND id IN
               (SELECT change FROM device_key WHERE key = ?{number}) ORDER BY id DESC LIMIT ?2"
        )
    } else {
        format!("{select} WHERE {conditions} ORDER BY id DESC LIMIT ?2")
    }
}

fn has_state(filter: &ChangeFilter, state: i64) -> bool {
    filter.states.iter().any(|wanted| state_code(*wanted) == state)
}

fn matches_filter(filter: &ChangeFilter, change: &Change) -> bool {
    let accounts = filter.accounts.as_ref();
    accounts.is_none_or(|accounts| accounts.contains(&change.account))
        && (filter.change_types.is_empty() || filter.change_types.contains(&change.change_type))
        && filter.created_from.is_none_or(|from| change.create_time >= from)
        && filter.created_before.is_none_or(|before| change.create_time < before)
}

/// Decodes a change from the columns record and status, which begin at `first`.
pub(in crate::journal) fn decode_stored(row: &dyn Row, first: usize) -> Result<Change> {
    decode(row, first)
}

/// Returns the condition of changes that ThingSpace may be executing without a known request.
pub(in crate::journal) fn has_device_lock() -> String {
    format!("{IS_OPEN} AND state IN ({})", state_codes(ChangeState::has_device_lock))
}

/// Returns the changes in flight and their owners.
pub(in crate::journal::sql) fn in_flight(db: &dyn Database) -> Result<Vec<(ChangeId, i64)>> {
    let states = state_codes(ChangeState::is_in_flight);
    let sql = format!(
        "SELECT change_id, owner FROM change WHERE {IS_OPEN} AND state IN ({states}) AND trimmed = 0
         ORDER BY state, id"
    );
    db.list(&sql, &[], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub(in crate::journal::sql) fn due_changes(
    db: &dyn Database,
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
        db.list(&sql, &values![state, time], |row| row.get(0))
    };
    let next =
        format!("SELECT min({since}) FROM change WHERE {IS_OPEN} AND state = ? AND {since} >= ?");
    Ok(DueChanges {
        due: list(&format!("< ? AND trimmed = 0 ORDER BY {since} LIMIT 100"), before)?,
        next: db.get(&next, &values![state, before], |row| row.get(0))?,
        ahead_of_clock: list("> ? AND trimmed = 0 LIMIT 1000", now)?,
    })
}

/// Counts the changes in each state, in the partial indexes.
pub(in crate::journal) fn count_by_state(db: &dyn Database) -> Result<StateCounts> {
    let mut counts = StateCounts::default();
    for state in ChangeState::ALL {
        let condition = if state.is_final() { IS_FINAL } else { IS_OPEN };
        let sql = format!("SELECT count(*) FROM change WHERE {condition} AND state = ?");
        counts.add(state, db.get(&sql, &values![state], |row| row.get(0))?);
    }
    Ok(counts)
}
