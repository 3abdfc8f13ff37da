//! Reads of events. A page is one read transaction.

use aws_lc_rs::digest;
use rusqlite::{Connection, Result, Row, params, types::ValueRef};

use crate::{
    domain::{
        change::{Change, SentDevice},
        device_states::DeviceRef,
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{ChangeId, RequestId},
        result::Match,
    },
    journal::{
        ChangeSelector, Cursor, Event, EventPage, EventPayload, WatchTarget,
        sqlite::tables::{
            CachedSql,
            changes::find_change,
            columns::{Json, decode_result, int, uint},
        },
    },
};

/// The columns of an event. A state has a snapshot, a result has the columns of `e`.
const COLUMNS: &str = "t.position, t.event_index, t.snapshot, e.result_json, r.evidence,
    e.match_kind, e.time, e.raw_json, e.device, d.sent_json";

pub(crate) fn events(
    db: &Connection,
    target: &WatchTarget,
    after: Cursor,
    limit: usize,
) -> Result<EventPage> {
    let (mut events, selector) = match target {
        WatchTarget::Change(id) => {
            (change_events(db, *id, after, limit + 1)?, ChangeSelector::Id(*id))
        }
        WatchTarget::Request(id) => {
            let events = request_events(db, id, after, limit + 1)?;
            (events, ChangeSelector::Request(id.clone()))
        }
    };
    let is_end = events.len() <= limit;
    events.truncate(limit);
    for event in &mut events {
        if let EventPayload::Result(result) = &mut event.payload
            && result.matched == Some(Match::None)
            && let Some(change_id) = result.change_id
        {
            result.resolved_device =
                find_resolved_device(db, change_id, &result.report.device_ids)?;
        }
    }
    Ok(EventPage { events, is_end, change: find_change(db, &selector)? })
}

fn change_events(db: &Connection, id: ChangeId, after: Cursor, limit: usize) -> Result<Vec<Event>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM timeline t
         LEFT JOIN log_entry e ON e.position = t.result_position
         LEFT JOIN device d ON d.change = t.change AND d.device_index = e.device
         LEFT JOIN request r ON r.id = e.request
         WHERE t.change = (SELECT id FROM change WHERE change_id = ? AND trimmed = 0)
           AND (t.position, t.event_index) > (?, ?)
         ORDER BY t.position, t.event_index LIMIT ?"
    );
    db.list(&sql, params![id, int(after.position), after.index, int(limit)], |row| {
        decode_event(row, Some(id))
    })
}

/// Returns the results of a request at their own positions and, once it is linked to a change, the
/// later states of the change.
fn request_events(
    db: &Connection,
    id: &RequestId,
    after: Cursor,
    limit: usize,
) -> Result<Vec<Event>> {
    let link: Option<(i64, i64, ChangeId)> = db.find(
        "SELECT c.id, r.link_position, c.change_id FROM request r JOIN change c ON c.id = r.change
         WHERE r.request_id = ? AND c.trimmed = 0",
        [id],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
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
    let mut events: Vec<Event> =
        db.list(&results, params![id, int(after.position), int(limit), change], |row| {
            decode_event(row, change_id)
        })?;

    let states = "SELECT position, event_index, snapshot FROM timeline
         WHERE change = ? AND result_position IS NULL AND position >= ?
           AND (position, event_index) > (?, ?)
         ORDER BY position, event_index LIMIT ?";
    let states: Vec<Event> = db.list(
        states,
        params![
            change,
            // A lower bound for the index, and the exact one.
            link_position.max(int(after.position)),
            int(after.position),
            after.index,
            int(limit)
        ],
        |row| decode_event(row, change_id),
    )?;
    events.extend(states);
    events.sort_unstable_by_key(|event| event.cursor);
    events.truncate(limit);
    Ok(events)
}

fn decode_event(row: &Row<'_>, change_id: Option<ChangeId>) -> Result<Event> {
    let cursor = Cursor { position: uint(row.get(0)?), index: row.get(1)? };
    if let ValueRef::Text(snapshot) = row.get_ref(2)? {
        let Json(change) = row.get::<_, Json<Change>>(2)?;
        let payload = EventPayload::State(Box::new(change));
        return Ok(Event { cursor, event_hash: event_hash(&[snapshot]), payload });
    }
    let raw_json: String = row.get(7)?;
    let event_hash = event_hash(&[row.get_ref(3)?.as_bytes()?, raw_json.as_bytes()]);
    let sent: Option<Json<SentDevice>> = row.get(9)?;
    let device = row.get::<_, Option<u32>>(8)?.zip(sent.map(|Json(sent)| sent));
    let result = decode_result(row, 3, change_id, device, raw_json)?;
    Ok(Event { cursor, event_hash, payload: EventPayload::Result(Box::new(result)) })
}

/// Finds the device that an unmatched result with these identifiers was resolved to later.
fn find_resolved_device(
    db: &Connection,
    change_id: ChangeId,
    ids: &[ReportedId],
) -> Result<Option<(u32, SentDevice)>> {
    for key in ids.iter().filter_map(MatchKey::from_reported) {
        let found: Option<(DeviceRef, Option<Json<SentDevice>>)> = db.find(
            "SELECT o.owner, d.sent_json FROM identifier_owner o
             JOIN change c ON c.id = o.change
             LEFT JOIN device d ON d.change = o.change AND d.device_index = o.owner
             WHERE c.change_id = ? AND o.identifier = ?",
            params![change_id, key.to_string()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if let Some((DeviceRef::Device(index), Some(Json(sent)))) = found {
            return Ok(Some((index, sent)));
        }
    }
    Ok(None)
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
