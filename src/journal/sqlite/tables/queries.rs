//! Reading a target's events. One read transaction a page, none between pages.

use aws_lc_rs::digest;
use rusqlite::{
    Connection, OptionalExtension, Row, params,
    types::{Value, ValueRef},
};

use super::{
    entry::{LogEntry, from_json, int, match_from_code, precedence_from_code, uint},
    unmatched_results::set_resolved_devices,
};
use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Timestamp,
        matching::MatchKey,
        newtypes::{CallbackService, ChangeId, RequestId},
        result::{DeviceResult, Outcome},
    },
    journal::{
        ChangeDevice, ChangeSelector, Cursor, DeviceFilter, DeviceOutcome, Event, EventPage,
        EventPayload, ResultEvent, WatchTarget,
    },
};

/// What is read of one event, whatever it is. `entry` is NULL for a state.
const COLUMNS: &str =
    "t.position, t.idx, t.snapshot, e.at, e.body, e.raw, e.device, e.match, d.sent, r.evidence";

/// The change of that name.
pub(in crate::journal) fn find_change(
    connection: &Connection,
    name: &ChangeSelector,
) -> rusqlite::Result<Option<Change>> {
    let select =
        |condition: &str| format!("SELECT snapshot FROM change WHERE trimmed = 0 AND {condition}");
    let read = |row: &Row<'_>| row.get::<_, String>(0);
    let snapshot = match name {
        ChangeSelector::Id(id) => connection
            .prepare_cached(&select("change_id = ?"))?
            .query_row([id.as_bytes().as_slice()], read),
        ChangeSelector::Request(id) => connection
            .prepare_cached(&select(
                "id = (SELECT change FROM request WHERE request_id = ?)",
            ))?
            .query_row([id.as_str()], read),
        ChangeSelector::Key(account, key) => connection
            .prepare_cached(&select("account = ? AND key = ?"))?
            .query_row([account.as_str(), key.as_str()], read),
    };
    snapshot
        .optional()?
        .map(|text| from_json(&text))
        .transpose()
}

/// The events of a target after a place.
pub(in crate::journal) fn events(
    connection: &Connection,
    target: &WatchTarget,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<EventPage> {
    let (mut events, change) = match target {
        WatchTarget::Change(id) => {
            let change = find_change(connection, &ChangeSelector::Id(*id))?;
            (change_events(connection, *id, after, limit + 1)?, change)
        }
        WatchTarget::Request(id) => {
            let change = find_change(connection, &ChangeSelector::Request(id.clone()))?;
            (request_events(connection, id, after, limit + 1)?, change)
        }
    };
    let is_end = events.len() <= limit;
    set_resolved_devices(connection, &mut events)?;
    Ok(EventPage {
        events: events.into_iter().take(limit).collect(),
        is_end,
        change,
    })
}

/// The event at exactly this place.
pub(in crate::journal) fn event_at(
    connection: &Connection,
    target: &WatchTarget,
    place: Cursor,
) -> rusqlite::Result<Option<Event>> {
    let before = match place {
        Cursor { position, index: 0 } => Cursor {
            position: position.saturating_sub(1),
            index: u32::MAX,
        },
        Cursor { position, index } => Cursor {
            position,
            index: index - 1,
        },
    };
    let page = events(connection, target, before, 1)?;
    Ok(page.events.into_iter().find(|event| event.cursor == place))
}

fn change_events(
    connection: &Connection,
    id: ChangeId,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM timeline t
         LEFT JOIN entry e ON e.position = t.entry
         LEFT JOIN device d ON d.change = t.change AND d.idx = e.device
         LEFT JOIN request r ON r.id = e.request
         WHERE t.change = (SELECT id FROM change WHERE change_id = ? AND trimmed = 0)
           AND (t.position, t.idx) > (?, ?)
         ORDER BY t.position, t.idx LIMIT ?"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(
            params![
                id.as_bytes().as_slice(),
                int(after.position),
                after.index,
                int(limit as u64)
            ],
            |row| decode_event(row, Some(id)),
        )?
        .collect()
}

/// The results of a request at their own places, and the states of the change
/// that it was bound to from the binding on.
fn request_events(
    connection: &Connection,
    id: &RequestId,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    let bound: Option<(i64, i64, ChangeId)> = connection
        .prepare_cached(
            "SELECT c.id, r.bound_at, c.change_id FROM request r JOIN change c ON c.id = r.change
             WHERE r.request_id = ? AND c.trimmed = 0",
        )?
        .query_row([id.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, ChangeId::from_bytes(row.get(2)?)))
        })
        .optional()?;
    let (change, bound_at, change_id) = match bound {
        Some((change, bound_at, id)) => (change, bound_at, Some(id)),
        None => (-1, i64::MAX, None),
    };

    // A result is the only event of its own position: index 0.
    let results = format!(
        "SELECT {COLUMNS} FROM
           (SELECT position, 0 AS idx, NULL AS snapshot, position AS entry FROM entry
            WHERE request = (SELECT id FROM request WHERE request_id = ?) AND position > ?
            ORDER BY position LIMIT ?) t
         JOIN entry e ON e.position = t.entry
         LEFT JOIN device d ON d.change = ? AND d.idx = e.device
         LEFT JOIN request r ON r.id = e.request
         ORDER BY t.position"
    );
    let mut events: Vec<Event> = connection
        .prepare_cached(&results)?
        .query_map(
            params![id.as_str(), int(after.position), int(limit as u64), change],
            |row| decode_event(row, change_id),
        )?
        .collect::<rusqlite::Result<_>>()?;

    let states = "SELECT position, idx, snapshot FROM timeline
         WHERE change = ? AND entry IS NULL AND position >= ? AND (position, idx) > (?, ?)
         ORDER BY position, idx LIMIT ?";
    let states: Vec<Event> = connection
        .prepare_cached(states)?
        .query_map(
            params![
                change,
                // One lower bound that the index can use, and the exact one.
                bound_at.max(int(after.position)),
                int(after.position),
                after.index,
                int(limit as u64)
            ],
            |row| decode_event(row, change_id),
        )?
        .collect::<rusqlite::Result<_>>()?;
    events.extend(states);
    events.sort_unstable_by_key(|event| event.cursor);
    events.truncate(limit);
    Ok(events)
}

fn decode_event(row: &Row<'_>, change_id: Option<ChangeId>) -> rusqlite::Result<Event> {
    let place = Cursor {
        position: uint(row.get(0)?),
        index: uint(row.get(1)?),
    };
    if let ValueRef::Text(snapshot) = row.get_ref(2)? {
        let change = from_json(std::str::from_utf8(snapshot)?)?;
        return Ok(Event {
            cursor: place,
            event_hash: event_hash(snapshot),
            payload: EventPayload::State(Box::new(change)),
        });
    }
    let body = row.get_ref(4)?.as_str()?;
    let (report, service) = decode_report(body, row.get(9)?)?;
    let device = match (row.get::<_, Option<i64>>(6)?, row.get_ref(8)?) {
        (Some(index), ValueRef::Text(sent)) => {
            let sent: SentDevice = from_json(std::str::from_utf8(sent)?)?;
            Some((uint(index), sent))
        }
        _ => None,
    };
    Ok(Event {
        cursor: place,
        event_hash: event_hash(body.as_bytes()),
        payload: EventPayload::Result(Box::new(ResultEvent {
            change_id,
            device,
            matched: row.get::<_, Option<i64>>(7)?.map(match_from_code),
            resolved_device: None,
            report,
            service,
            receive_time: Timestamp::from_micros(row.get(3)?),
            raw_json: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        })),
    })
}

/// The first four bytes of an event's SHA-256: enough to tell a restored or
/// foreign journal from this one.
fn event_hash(event: &[u8]) -> u32 {
    digest::digest(&digest::SHA256, event)
        .as_ref()
        .iter()
        .take(4)
        .fold(0, |mark, byte| (mark << 8) | u32::from(*byte))
}

/// The report of a result, and the callback service that delivered it. The evidence
/// is that of the result itself, or else that of its request's attribution.
fn decode_report(
    body: &str,
    evidence: Option<String>,
) -> rusqlite::Result<(DeviceResult, Option<CallbackService>)> {
    let LogEntry::Result {
        mut report,
        service,
        ..
    } = from_json(body)?
    else {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    };
    if report.evidence.is_empty() {
        report.evidence = evidence.unwrap_or_default();
    }
    Ok((*report, service))
}

/// The devices of a change that match a filter, by index.
pub(in crate::journal) fn devices(
    connection: &Connection,
    id: ChangeId,
    filter: &DeviceFilter,
) -> rusqlite::Result<Vec<ChangeDevice>> {
    let mut sql = "SELECT d.idx, d.sent, d.on_plan, d.verdict, e.body, r.evidence, e.match, e.at
         FROM device d
         LEFT JOIN entry e ON e.position = d.decided_by
         LEFT JOIN request r ON r.id = e.request
         WHERE d.change = (SELECT id FROM change WHERE change_id = ?1 AND trimmed = 0)
           AND d.idx >= ?2"
        .to_owned();
    if !filter.outcomes.is_empty() {
        let conditions: Vec<&str> = filter.outcomes.iter().map(outcome_condition).collect();
        sql.push_str(&format!(" AND ({})", conditions.join(" OR ")));
    }
    let key = filter.device.as_ref().map(MatchKey::from_id);
    if key.is_some() {
        sql.push_str(
            " AND d.idx IN (SELECT k.idx FROM device_key k WHERE k.key = ?3 AND k.change = d.change)",
        );
    }
    sql.push_str(" ORDER BY d.idx");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut values: Vec<Value> = vec![id.as_bytes().to_vec().into(), filter.from.into()];
    values.extend(key.as_ref().map(|key| Value::from(key.index_key())));
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut devices = Vec::new();
    while devices.len() < filter.limit
        && let Some(row) = rows.next()?
    {
        let device = decode_device(row, id)?;
        // The lookup key alone equates ICCIDs that differ in a trailing check digit.
        let is_meant = |key: &MatchKey| {
            let mut ids = device.sent.ids.iter();
            ids.any(|id| MatchKey::from_id(id).is_same(key))
        };
        if key.as_ref().is_none_or(is_meant) {
            devices.push(device);
        }
    }
    Ok(devices)
}

fn outcome_condition(outcome: &DeviceOutcome) -> &'static str {
    // See `verdict_code`: successes are odd.
    match outcome {
        DeviceOutcome::Pending => "d.verdict IS NULL",
        DeviceOutcome::Succeeded => "d.verdict % 2 = 1",
        DeviceOutcome::Failed => "d.verdict % 2 = 0",
    }
}

fn decode_device(row: &Row<'_>, change_id: ChangeId) -> rusqlite::Result<ChangeDevice> {
    let index = uint(row.get(0)?);
    let sent: SentDevice = from_json(row.get_ref(1)?.as_str()?)?;
    let result = match row.get::<_, Option<String>>(4)? {
        None => None,
        Some(body) => {
            let (report, service) = decode_report(&body, row.get(5)?)?;
            Some(Box::new(ResultEvent {
                change_id: Some(change_id),
                device: Some((index, sent.clone())),
                matched: row.get::<_, Option<i64>>(6)?.map(match_from_code),
                resolved_device: None,
                report,
                service,
                receive_time: Timestamp::from_micros(row.get(7)?),
                raw_json: String::new(),
            }))
        }
    };
    Ok(ChangeDevice {
        index,
        sent,
        was_on_plan: row.get::<_, Option<i64>>(2)?.is_some(),
        outcome: match row.get::<_, Option<i64>>(3)?.map(precedence_from_code) {
            None => DeviceOutcome::Pending,
            Some(verdict) if verdict.outcome == Outcome::Succeeded => DeviceOutcome::Succeeded,
            Some(_) => DeviceOutcome::Failed,
        },
        result,
    })
}
