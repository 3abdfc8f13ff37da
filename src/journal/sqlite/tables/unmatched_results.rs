//! Results that match no device, and the device that a look-up finds one to be of.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    apply::{ApplyResult, WriteBatch},
    device_state_store::{DeviceStateTable, device_ref_from_code},
    entry::{LogEntry, from_json, int, state_code, uint},
    results::find_devices_by_key,
};
use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        device_states::DeviceRef,
        identifier::ReportedId,
        matching::{MatchKey, can_be_same_device, find_device},
        newtypes::ChangeId,
        result::Match,
        state::ChangeState,
    },
    journal::{Event, EventPayload, JournalError, UnmatchedResult},
    operations,
};

impl WriteBatch<'_> {
    /// Joins a stray to the one device of its change that has these identifiers, all of one device.
    /// Changes nothing where that is not exactly one, or where anything contradicts it.
    pub(in crate::journal) fn resolve_unmatched_result(
        &mut self,
        change_id: ChangeId,
        first_result: u64,
        listed: &[ReportedId],
        now: Timestamp,
    ) -> ApplyResult<bool> {
        let connection = self.connection;
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        let Some(named) = load_reported_ids(connection, id, first_result)? else {
            // It has been joined to another by a callback that came meanwhile.
            return Ok(Ok(false));
        };
        let loaded = self.load(id)?;
        let (kind, count) = (
            operations::evidence(loaded.change.change_type).identifying_kinds,
            loaded.change.device_count,
        );
        let found = find_device(kind, count, listed, |key| {
            find_devices_by_key(connection, id, key)
        })?;
        let (Some(index), Match::Exact) = found else {
            return Ok(Ok(false));
        };
        if !can_be_same_device(&named, listed) {
            return Ok(Ok(false));
        }
        let keys: Vec<MatchKey> = listed
            .iter()
            .filter_map(MatchKey::from_reported)
            .filter(|key| key.is_identifying(kind))
            .collect();
        let mut answers = DeviceStateTable {
            connection,
            change: id,
        };
        if !loaded.device_states.try_merge(&mut answers, &keys, index)? {
            return Ok(Ok(false));
        }
        loaded.change.counts = loaded.device_states.counts(count);
        loaded.change.touch(now);
        loaded.is_dirty = true;
        let entry = LogEntry::DeviceResolved {
            change_id,
            device: index,
            ids: listed.to_vec(),
        };
        // The finding is an event of its own: what was told before stays as it was told.
        let position = self.append(&entry, now, None, None)?;
        self.append_state_event(id, position, 0)?;
        self.finish_if_complete(id, position, 1, now)?;
        Ok(Ok(true))
    }
}

/// The identifiers that a stray was told with; `None` when it is none any more.
fn load_reported_ids(
    connection: &Connection,
    change: i64,
    first_result: u64,
) -> rusqlite::Result<Option<Vec<ReportedId>>> {
    let body: Option<String> = connection
        .prepare_cached(
            "SELECT e.body FROM stray s JOIN entry e ON e.position = s.number
             WHERE s.change = ? AND s.number = ?",
        )?
        .query_row([change, int(first_result)], |row| row.get(0))
        .optional()?;
    body.map(|body| decode_device_ids(&body)).transpose()
}

fn decode_device_ids(body: &str) -> rusqlite::Result<Vec<ReportedId>> {
    Ok(match from_json(body)? {
        LogEntry::Result { report, .. } => report.device_ids,
        LogEntry::Queued { .. } | LogEntry::Transition { .. } | LogEntry::DeviceResolved { .. } => {
            Vec::new()
        }
    })
}

/// Strays of changes that are open, or about which something was heard since a time; those after a
/// number, in order.
pub(in crate::journal) fn unmatched_results(
    connection: &Connection,
    since: Timestamp,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<UnmatchedResult>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.change_id, s.number, e.body FROM stray s
         JOIN change c ON c.id = s.change JOIN entry e ON e.position = s.number
         WHERE s.number > ? AND c.trimmed = 0 AND (c.state IN (?, ?) OR c.last_time >= ?)
         ORDER BY s.number LIMIT ?",
    )?;
    let mut rows = statement.query(params![
        int(after),
        state_code(ChangeState::Accepted),
        state_code(ChangeState::Overdue),
        since.as_micros(),
        int(limit as u64)
    ])?;
    let mut strays = Vec::new();
    while let Some(row) = rows.next()? {
        strays.push(UnmatchedResult {
            change_id: ChangeId::from_bytes(row.get(0)?),
            first_result: uint(row.get(1)?),
            ids: decode_device_ids(row.get_ref(2)?.as_str()?)?,
        });
    }
    Ok(strays)
}

/// Says of each result that matched no device which one it is known to be of by now.
pub(crate) fn set_resolved_devices(
    connection: &Connection,
    events: &mut [Event],
) -> rusqlite::Result<()> {
    for event in events {
        if let EventPayload::Result(result) = &mut event.payload
            && result.matched == Some(Match::None)
            && let Some(change_id) = result.change_id
        {
            result.resolved_device =
                find_resolved_device(connection, change_id, &result.report.device_ids)?;
        }
    }
    Ok(())
}

fn find_resolved_device(
    connection: &Connection,
    change_id: ChangeId,
    ids: &[ReportedId],
) -> rusqlite::Result<Option<(u32, SentDevice)>> {
    for key in ids.iter().filter_map(MatchKey::from_reported) {
        let found: Option<(i64, Option<String>)> = connection
            .prepare_cached(
                "SELECT n.grp, d.sent FROM named n JOIN change c ON c.id = n.change
                 LEFT JOIN device d ON d.change = n.change AND d.idx = n.grp
                 WHERE c.change_id = ? AND n.key = ?",
            )?
            .query_row(
                params![change_id.as_bytes().as_slice(), key.to_string()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        if let Some((group, Some(sent))) = found
            && let DeviceRef::Device(index) = device_ref_from_code(group)
        {
            return Ok(Some((index, from_json(&sent)?)));
        }
    }
    Ok(None)
}
