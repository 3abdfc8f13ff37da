//! Reads of events. A page is one read transaction.

use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
    ops::ControlFlow,
};

use bytes::BytesMut;

use crate::{
    domain::{
        change::Change,
        newtypes::{AccountName, RequestId},
        result::Match,
    },
    journal::{
        Cursor, Event, EventPage, EventPayload, EventQuery, Removal, Removed, ResultRecord,
        WatchTarget,
        apply::Row as RowNumber,
        record::{ChangeRecord, decode_result},
        sql::{
            Database, Result, Value,
            tables::{
                columns::STATE_EVENT,
                devices,
                stored_change::{self, decode_status},
                stored_result::{RESULT_COLUMNS, decode_record},
            },
            value::values,
        },
    },
};

/// A change, its request, and the position at which they were linked.
struct Stream {
    row: RowNumber,
    change: Change,
    record: ChangeRecord,
    request: Option<RowNumber>,
    link_position: u64,
}

/// True for the kind of an event that is a state of a change; others are results.
pub(in crate::journal) fn is_state(kind: i64) -> bool {
    kind == STATE_EVENT
}

pub(in crate::journal) fn events(
    db: &dyn Database,
    target: &WatchTarget,
    query: EventQuery,
) -> Result<EventPage> {
    let EventQuery { after, limit, raw_json, resolved_device } = query;
    // One more, to find out if the page is the last one.
    let reader = Reader { db, after, limit: limit + 1, raw_json };
    let (mut events, stream, removed) = match target {
        WatchTarget::Change(id) => {
            let stream = find_stream(db, "c.change_id = ? AND c.trimmed = 0", id.into())?;
            let events = stream.as_ref().map(|stream| reader.change_events(stream)).transpose()?;
            let first = stream.as_ref().map(|stream| stream.row);
            (events.unwrap_or_default(), stream, Removed::Together { first })
        }
        WatchTarget::Request(id) => reader.request_events(id)?,
        WatchTarget::Account(name) => {
            let sql = "SELECT id FROM account WHERE name = ?";
            match db.find(sql, &values![name], |row| row.get(0))? {
                Some(account) => (reader.account_events(account)?, None, removals(db, account)?),
                None => (Vec::new(), None, Removed::OneByOne(Vec::new())),
            }
        }
    };
    let is_end = events.len() <= limit;
    events.truncate(limit);
    if resolved_device {
        resolve_devices(db, stream.as_ref(), &mut events)?;
    }
    Ok(EventPage { events, is_end, change: stream.map(|stream| stream.change), removed })
}

/// Returns the account that the results of a request belong to.
pub(in crate::journal) fn account_of_request(
    db: &dyn Database,
    request: &RequestId,
) -> Result<Option<AccountName>> {
    let account = db.find(
        "SELECT a.name FROM request r LEFT JOIN change c ON c.id = r.change
         LEFT JOIN account a ON a.id = coalesce(c.account, r.account) WHERE r.request_id = ?",
        &values![request],
        |row| row.get(0),
    )?;
    Ok(account.flatten())
}

fn removals(db: &dyn Database, account: i64) -> Result<Removed> {
    let sql = "SELECT number, newest FROM removal WHERE account = ? ORDER BY number";
    let removals = db.list(sql, &values![account], |row| {
        Ok(Removal { number: row.get(0)?, newest: row.get(1)? })
    })?;
    Ok(Removed::OneByOne(removals))
}

fn find_stream(db: &dyn Database, condition: &str, key: Value<'_>) -> Result<Option<Stream>> {
    let sql = format!(
        "SELECT c.id, c.record, c.status, r.id, r.link_position FROM change c
         LEFT JOIN request r ON r.id = c.request WHERE {condition}"
    );
    db.find(&sql, &[key], |row| {
        Ok(Stream {
            row: row.get(0)?,
            change: stored_change::decode(row, 1)?,
            record: ChangeRecord::from_bytes(row.get(1)?)?,
            request: row.get(3)?,
            link_position: row.get::<Option<u64>>(4)?.unwrap_or_default(),
        })
    })
}

/// Reads one page.
struct Reader<'c> {
    db: &'c dyn Database,
    after: Cursor,
    limit: usize,
    raw_json: bool,
}

/// The condition of events that are not hidden. Only few changes and requests are hidden at a time.
const NOT_TRIMMED: &str =
    "stream NOT IN (SELECT id FROM change INDEXED BY change_trimmed WHERE trimmed = 1
     UNION ALL SELECT id FROM request INDEXED BY request_trimmed WHERE request_id IS NULL)";

/// Usual size of a record, without the callback's body.
const BYTES_PER_RECORD: usize = 400;
/// Maximum number of records that the first buffer of a page is made for.
const MAX_BUFFERED_RECORDS: usize = 256;
impl Reader<'_> {
    /// Reads the events of a change: its states, the results that were stored before the request was linked
    /// at the position of the link, and the later results.
    fn change_events(&self, stream: &Stream) -> Result<Vec<Event>> {
        let mut events = self.states(stream, 0)?;
        if let Some(request) = stream.request {
            events.extend(self.early_results(request, stream.link_position, None)?);
            let from = self.after.position.max(stream.link_position);
            events.extend(self.results(request, from)?);
            events.sort_by_key(|event| event.cursor);
            events.truncate(self.limit);
        }
        Ok(events)
    }

    /// Reads the events of a request: its results, and the states of its change from the link on.
    fn request_events(&self, id: &RequestId) -> Result<(Vec<Event>, Option<Stream>, Removed)> {
        let found = self.db.find(
            "SELECT id, change FROM request WHERE request_id = ?",
            &values![id],
            |row| Ok((row.get(0)?, row.get::<Option<u64>>(1)?)),
        )?;
        let Some((request, change)) = found else {
            return Ok((Vec::new(), None, Removed::Together { first: None }));
        };
        let mut events = self.results(request, self.after.position)?;
        let stream = match change {
            Some(change) => find_stream(self.db, "c.id = ? AND c.trimmed = 0", change.into())?,
            None => None,
        };
        if let Some(stream) = &stream {
            events.extend(self.states(stream, stream.link_position)?);
            events.sort_by_key(|event| event.cursor);
            events.truncate(self.limit);
        }
        Ok((events, stream, Removed::Together { first: Some(request) }))
    }

    /// Reads the events of an account. Results that were stored before their request was linked follow the
    /// state that links it, unless they are in the timeline of the account at their own position.
    fn account_events(&self, account: i64) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if self.after.position > 0 {
            let sql = format!(
                "SELECT early_request FROM event
                 WHERE position = ? AND account = ? AND {NOT_TRIMMED}"
            );
            let interrupted =
                self.db.find(&sql, &values![self.after.position, account], |row| {
                    row.get::<Option<u64>>(0)
                })?;
            if let Some(request) = interrupted.flatten() {
                events = self.early_results(request, self.after.position, Some(account))?;
            }
        }
        let sql = format!(
            "SELECT {RESULT_COLUMNS}, {}, stream, early_request FROM event
             WHERE account = ? AND position > ? AND {NOT_TRIMMED} ORDER BY position LIMIT ?",
            self.raw_column()
        );
        let values = values![account, self.after.position, self.limit];
        let mut records = HashMap::new();
        let mut buffer = self.buffer();
        self.db.query(&sql, &values, &mut |row| {
            if events.len() >= self.limit {
                return Ok(ControlFlow::Break(()));
            }
            let position: u64 = row.get(0)?;
            let cursor = Cursor { position, index: 0 };
            if row.get::<i64>(1)? != STATE_EVENT {
                events.push(result_event(cursor, decode_record(row, &mut buffer)?)?);
                return Ok(ControlFlow::Continue(()));
            }
            let change: i64 = row.get(5)?;
            let record = match records.entry(change) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(load_record(self.db, change)?),
            };
            events.push(state_event(cursor, row.get(2)?, record)?);
            if let Some(request) = row.get(6)? {
                events.extend(self.early_results(request, position, Some(account))?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        events.truncate(self.limit);
        Ok(events)
    }

    /// Reads the states of a change at a position or later.
    fn states(&self, stream: &Stream, from: u64) -> Result<Vec<Event>> {
        let from = from.max(self.after.position + 1);
        self.db.list(
            "SELECT position, body FROM event WHERE stream = ? AND position >= ?
             ORDER BY position LIMIT ?",
            &values![stream.row, from, self.limit],
            |row| {
                let cursor = Cursor { position: row.get(0)?, index: 0 };
                state_event(cursor, row.get(1)?, &stream.record)
            },
        )
    }

    /// Reads the results of a request after a position.
    fn results(&self, request: RowNumber, after: u64) -> Result<Vec<Event>> {
        let sql = format!(
            "SELECT {RESULT_COLUMNS}, {} FROM event WHERE stream = ? AND position > ? AND kind > {STATE_EVENT}
             ORDER BY position LIMIT ?",
            self.raw_column()
        );
        let values = values![request, after, self.limit];
        let mut buffer = self.buffer();
        self.db.list(&sql, &values, |row| {
            let cursor = Cursor { position: row.get(0)?, index: 0 };
            result_event(cursor, decode_record(row, &mut buffer)?)
        })
    }

    /// Reads the results that were stored before their request was linked, without those of an account. They
    /// have the position of the link.
    fn early_results(
        &self,
        request: RowNumber,
        link_position: u64,
        except: Option<i64>,
    ) -> Result<Vec<Event>> {
        let delivered = match self.after.position.cmp(&link_position) {
            Ordering::Less => 0,
            Ordering::Equal => self.after.index,
            Ordering::Greater => u32::MAX,
        };
        if delivered == u32::MAX {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {RESULT_COLUMNS}, {} FROM event
             WHERE stream = ? AND position < ? AND (CAST(?3 AS BIGINT) IS NULL OR account IS DISTINCT FROM ?3)
             ORDER BY position LIMIT ? OFFSET ?",
            self.raw_column()
        );
        let values = values![request, link_position, except, self.limit, delivered];
        let mut buffer = self.buffer();
        let records = self.db.list(&sql, &values, |row| decode_record(row, &mut buffer))?;
        (delivered + 1..)
            .zip(records)
            .map(|(index, record)| result_event(Cursor { position: link_position, index }, record))
            .collect()
    }

    /// A buffer for the records of a page.
    fn buffer(&self) -> BytesMut {
        BytesMut::with_capacity(BYTES_PER_RECORD * self.limit.min(MAX_BUFFERED_RECORDS))
    }

    fn raw_column(&self) -> &'static str {
        if self.raw_json {
            "(SELECT raw_json FROM callback_body b WHERE b.position = event.position)"
        } else {
            "NULL"
        }
    }
}

fn load_record(db: &dyn Database, change: i64) -> Result<ChangeRecord> {
    db.get("SELECT record FROM change WHERE id = ?", &values![change], |row| {
        Ok(ChangeRecord::from_bytes(row.get(0)?)?)
    })
}

fn state_event(cursor: Cursor, status: &[u8], record: &ChangeRecord) -> Result<Event> {
    let change = record.with_status(&decode_status(status)?)?;
    let payload = EventPayload::State(Box::new(change));
    Ok(Event { cursor, event_hash: event_hash(status), payload })
}

fn result_event(cursor: Cursor, record: ResultRecord) -> Result<Event> {
    let event_hash = event_hash(&record.body);
    Ok(Event { cursor, event_hash, payload: EventPayload::Result(Box::new(record)) })
}

fn resolve_devices(db: &dyn Database, stream: Option<&Stream>, events: &mut [Event]) -> Result<()> {
    let Some(stream) = stream else {
        return Ok(());
    };
    for event in events {
        if let EventPayload::Result(record) = &mut event.payload
            && record.matched == Some(Match::None)
        {
            let report = decode_result(&record.body)?;
            record.resolved_device = devices::find_resolved(db, stream.row, &report.device_ids)?;
        }
    }
    Ok(())
}

/// Returns the CRC-32 of the part of an event that is never modified. It distinguishes a restored or foreign
/// journal from this one.
fn event_hash(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}
