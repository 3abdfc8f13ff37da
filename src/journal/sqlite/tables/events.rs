//! Reads of events. A page is one read transaction.

use aws_lc_rs::digest;
use rusqlite::{Connection, Row, params, types::ValueRef};

use crate::journal::sqlite::tables::{
    changes::find_change,
    codes::match_from_code,
    encoding::{StoredResult, from_json, int, uint},
    sql,
    unmatched_results::set_resolved_devices,
};
use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        newtypes::{ChangeId, RequestId},
    },
    journal::{
        changes::ChangeSelector,
        events::{Cursor, Event, EventPage, EventPayload, ResultEvent, WatchTarget},
    },
};

/// The columns of an event. A state has a snapshot, a result has the columns of `e`.
const COLUMNS: &str = "t.position, t.event_index, t.snapshot, e.time, e.result_json, e.raw_json,
    e.device, e.match_kind, d.sent_json, r.evidence";

pub(crate) fn events(
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
    Ok(EventPage { events: events.into_iter().take(limit).collect(), is_end, change })
}

pub(crate) fn event_at(
    connection: &Connection,
    target: &WatchTarget,
    cursor: Cursor,
) -> rusqlite::Result<Option<Event>> {
    let before = match cursor {
        Cursor { position, index: 0 } => {
            Cursor { position: position.saturating_sub(1), index: u32::MAX }
        }
        Cursor { position, index } => Cursor { position, index: index - 1 },
    };
    let page = events(connection, target, before, 1)?;
    Ok(page.events.into_iter().find(|event| event.cursor == cursor))
}

fn change_events(
    connection: &Connection,
    id: ChangeId,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM timeline t
         LEFT JOIN log_entry e ON e.position = t.result_position
         LEFT JOIN device d ON d.change = t.change AND d.device_index = e.device
         LEFT JOIN request r ON r.id = e.request
         WHERE t.change = (SELECT id FROM change WHERE change_id = ? AND trimmed = 0)
           AND (t.position, t.event_index) > (?, ?)
         ORDER BY t.position, t.event_index LIMIT ?"
    );
    sql::list(
        connection,
        &sql,
        params![id.as_bytes().as_slice(), int(after.position), after.index, int(limit as u64)],
        |row| decode_event(row, Some(id)),
    )
}

/// Returns the results of a request at their own positions and, once it is linked to a change, the
/// later states of the change.
fn request_events(
    connection: &Connection,
    id: &RequestId,
    after: Cursor,
    limit: usize,
) -> rusqlite::Result<Vec<Event>> {
    let link: Option<(i64, i64, ChangeId)> = sql::find(
        connection,
        "SELECT c.id, r.link_position, c.change_id FROM request r JOIN change c ON c.id = r.change
         WHERE r.request_id = ? AND c.trimmed = 0",
        [id.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?, ChangeId::from_bytes(row.get(2)?))),
    )?;
    let (change, link_position, change_id) = match link {
        Some((change, link_position, id)) => (change, link_position, Some(id)),
        None => (-1, i64::MAX, None),
    };

    // A result is the only event of its entry.
    let results = format!(
        "SELECT {COLUMNS} FROM
           (SELECT position, 0 AS event_index, NULL AS snapshot FROM log_entry
            WHERE request = (SELECT id FROM request WHERE request_id = ?) AND position > ?
            ORDER BY position LIMIT ?) t
         JOIN log_entry e ON e.position = t.position
         LEFT JOIN device d ON d.change = ? AND d.device_index = e.device
         LEFT JOIN request r ON r.id = e.request
         ORDER BY t.position"
    );
    let mut events: Vec<Event> = sql::list(
        connection,
        &results,
        params![id.as_str(), int(after.position), int(limit as u64), change],
        |row| decode_event(row, change_id),
    )?;

    let states = "SELECT position, event_index, snapshot FROM timeline
         WHERE change = ? AND result_position IS NULL AND position >= ?
           AND (position, event_index) > (?, ?)
         ORDER BY position, event_index LIMIT ?";
    let states: Vec<Event> = sql::list(
        connection,
        states,
        params![
            change,
            // A lower bound for the index, and the exact one.
            link_position.max(int(after.position)),
            int(after.position),
            after.index,
            int(limit as u64)
        ],
        |row| decode_event(row, change_id),
    )?;
    events.extend(states);
    events.sort_unstable_by_key(|event| event.cursor);
    events.truncate(limit);
    Ok(events)
}

fn decode_event(row: &Row<'_>, change_id: Option<ChangeId>) -> rusqlite::Result<Event> {
    let cursor = Cursor { position: uint(row.get(0)?), index: uint(row.get(1)?) };
    if let ValueRef::Text(snapshot) = row.get_ref(2)? {
        let change = from_json(std::str::from_utf8(snapshot)?)?;
        return Ok(Event {
            cursor,
            event_hash: event_hash(&[snapshot]),
            payload: EventPayload::State(Box::new(change)),
        });
    }
    let result_json = row.get_ref(4)?.as_str()?;
    let raw_json = row.get_ref(5)?.as_str()?;
    let result = StoredResult::decode(result_json, row.get(9)?)?;
    let device = match (row.get::<_, Option<i64>>(6)?, row.get_ref(8)?) {
        (Some(index), ValueRef::Text(sent)) => {
            let sent: SentDevice = from_json(std::str::from_utf8(sent)?)?;
            Some((uint(index), sent))
        }
        _ => None,
    };
    Ok(Event {
        cursor,
        event_hash: event_hash(&[result_json.as_bytes(), raw_json.as_bytes()]),
        payload: EventPayload::Result(Box::new(ResultEvent {
            change_id,
            device,
            matched: row.get::<_, Option<i64>>(7)?.map(match_from_code),
            resolved_device: None,
            report: result.report,
            service: result.service,
            receive_time: Timestamp::from_micros(row.get(3)?),
            raw_json: raw_json.to_owned(),
        })),
    })
}

/// Returns the first bytes of the SHA-256 of a stored event. They distinguish a restored or foreign
/// journal from this one.
fn event_hash(parts: &[&[u8]]) -> u32 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let hash = context.finish();
    let prefix = hash.as_ref().first_chunk();
    prefix.copied().map_or(0, u32::from_be_bytes)
}
