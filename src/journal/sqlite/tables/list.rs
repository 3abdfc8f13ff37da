//! Lists of changes, and what upkeep asks.

use std::collections::VecDeque;

use rusqlite::{
    Connection, OptionalExtension, params,
    types::{Type, Value},
};

use super::{
    attribute::last_dispatch_position,
    entry::{from_json, int, state_code, uint},
    schema::get_meta,
};
use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Timestamp,
        identifier::DeviceId,
        matching::MatchKey,
        newtypes::{ChangeId, RequestId},
        state::ChangeState,
    },
    invariants::Invariant,
    journal::{ChangeFilter, ChangePage, Coverage, DueChanges, StateCounts},
};

/// How many rows one page looks at: with rare matches, a page may be short.
const MAX_SCANNED: usize = 20_000;
/// Bytes of stored changes after which a page ends early, so that the response stays below the 4 MiB
/// that gRPC clients accept: a change is encoded in at most three times its stored size.
const MAX_BYTES: usize = 1024 * 1024;

/// Changes, newest first: in the order of their ids, so that nothing is sorted.
pub(in crate::journal) fn changes(
    connection: &Connection,
    filter: &ChangeFilter,
) -> rusqlite::Result<ChangePage> {
    let (sql, values) = select(filter);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut page = ChangePage::default();
    let (mut scanned, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        if page.changes.len() == filter.limit || scanned == MAX_SCANNED || bytes >= MAX_BYTES {
            return Ok(page);
        }
        scanned += 1;
        let id: u64 = uint(row.get(0)?);
        page.next = Some(id);
        let (state, created): (i64, i64) = (row.get(1)?, row.get(2)?);
        if matches_filter(filter, state, Timestamp::from_micros(created))
            && has_device(connection, id, filter.device.as_ref())?
        {
            let snapshot = row.get_ref(3)?.as_str()?;
            let change: Change = from_json(snapshot)?;
            let types = &filter.change_types;
            if types.is_empty() || types.contains(&change.change_type) {
                bytes += snapshot.len();
                page.changes.push(change);
            }
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
        let changes = "c.id IN (SELECT change FROM device_key WHERE key = ?)";
        and(changes, MatchKey::from_id(device).index_key().into());
    }
    sql.push_str(" ORDER BY c.id DESC");
    (sql, values)
}

/// What is looked at row by row: an index for it would have to be sorted.
fn matches_filter(filter: &ChangeFilter, state: i64, created: Timestamp) -> bool {
    let any = filter.states.is_empty();
    (any || filter
        .states
        .iter()
        .any(|wanted| state_code(*wanted) == state))
        && filter.created_from.is_none_or(|from| created >= from)
        && filter.created_before.is_none_or(|before| created < before)
}

/// Whether a change was sent with exactly this identifier: the look-up alone
/// takes ICCIDs of 20 digits that differ in the last for one.
fn has_device(
    connection: &Connection,
    change: u64,
    device: Option<&DeviceId>,
) -> rusqlite::Result<bool> {
    let Some(device) = device else {
        return Ok(true);
    };
    let key = MatchKey::from_id(device);
    let mut statement = connection.prepare_cached(
        "SELECT d.sent FROM device_key k JOIN device d USING (change, idx)
         WHERE k.key = ? AND k.change = ?",
    )?;
    let mut rows = statement.query(params![key.index_key(), int(change)])?;
    while let Some(row) = rows.next()? {
        let sent: SentDevice = from_json(row.get_ref(0)?.as_str()?)?;
        if sent
            .ids
            .iter()
            .any(|id| MatchKey::from_id(id).is_same(&key))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Changes that have waited in a state since before a time.
pub(in crate::journal) fn due_changes(
    connection: &Connection,
    state: ChangeState,
    before: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<DueChanges> {
    // ACCEPTED and OVERDUE ones by the index; of all else there are few.
    let since = match state {
        ChangeState::Accepted | ChangeState::Overdue => "accept_time",
        _ => "last_time",
    };
    let state = state_code(state);
    let due = format!(
        "SELECT change_id FROM change WHERE state = ? AND {since} < ? AND trimmed = 0
         ORDER BY {since} LIMIT 100"
    );
    let due = connection
        .prepare_cached(&due)?
        .query_map([state, before.as_micros()], |row| {
            Ok(ChangeId::from_bytes(row.get(0)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let next = format!("SELECT min({since}) FROM change WHERE state = ? AND {since} >= ?");
    let next = connection
        .prepare_cached(&next)?
        .query_row([state, before.as_micros()], |row| {
            row.get::<_, Option<i64>>(0)
        })?;
    let ahead = format!(
        "SELECT change_id FROM change WHERE state = ? AND {since} > ? AND trimmed = 0 LIMIT 1000"
    );
    let ahead = connection
        .prepare_cached(&ahead)?
        .query_map([state, now.as_micros()], |row| {
            Ok(ChangeId::from_bytes(row.get(0)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(DueChanges {
        due,
        ahead_of_clock: ahead,
        next: next.map(Timestamp::from_micros),
    })
}

/// Requests that no change owns and whose first result came after a change was sent, newest first. If
/// there are more than `limit`, the oldest: the change's own request is likely to be among them.
pub(in crate::journal) fn unattributed_requests(
    connection: &Connection,
    change: ChangeId,
    limit: usize,
) -> rusqlite::Result<Vec<RequestId>> {
    let id = connection
        .prepare_cached("SELECT id FROM change WHERE change_id = ? AND trimmed = 0")?
        .query_row([change.as_bytes().as_slice()], |row| row.get(0))
        .optional()?;
    let dispatched = match id {
        Some(id) => last_dispatch_position(connection, id)?,
        None => None,
    };
    let Some(dispatched) = dispatched else {
        return Ok(Vec::new());
    };
    // Rows are in the order of the requests' first results.
    let mut statement = connection.prepare_cached(
        "SELECT r.request_id, (SELECT min(position) FROM entry WHERE request = r.id)
         FROM request r NOT INDEXED WHERE r.change IS NULL ORDER BY r.id DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut found = VecDeque::new();
    while let Some(row) = rows.next()? {
        let Some(first_result) = row.get::<_, Option<i64>>(1)? else {
            continue;
        };
        let is_earlier =
            uint::<u64>(first_result) < dispatched && !Invariant::JournalPositions.is_disabled();
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

/// Changes whose call is being answered.
pub(in crate::journal) fn in_flight(connection: &Connection) -> rusqlite::Result<Vec<Change>> {
    let mut found = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT snapshot FROM change WHERE state = ? AND trimmed = 0 ORDER BY id",
    )?;
    for state in ChangeState::ALL {
        if state.is_in_flight() {
            let mut rows = statement.query([state_code(state)])?;
            while let Some(row) = rows.next()? {
                found.push(from_json(row.get_ref(0)?.as_str()?)?);
            }
        }
    }
    Ok(found)
}

/// How many changes are in each state.
pub(in crate::journal) fn count_by_state(connection: &Connection) -> rusqlite::Result<StateCounts> {
    let mut census = StateCounts::default();
    let mut statement = connection
        .prepare("SELECT state, count(*) FROM change WHERE trimmed = 0 GROUP BY state")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let code: i64 = row.get(0)?;
        if let Some(state) = ChangeState::ALL
            .into_iter()
            .find(|state| state_code(*state) == code)
        {
            census.add(state, row.get(1)?);
        }
    }
    Ok(census)
}

/// How far the journal reaches.
pub(in crate::journal) fn coverage(connection: &Connection) -> rusqlite::Result<Coverage> {
    let last: Option<i64> = connection
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'entry'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let trimmed = get_meta(connection, "trimmed")?.unwrap_or_default();
    let trimmed = trimmed
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    Ok(Coverage {
        last: last.map_or(0, uint),
        trimmed,
    })
}
