//! Results that match no device, and the device that a look-up finds one to be of.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    answers::{Answers, group_of},
    apply::{Applied, Batch},
    entry::{Entry, from_json, int, state_code, uint},
    results::sent_with,
};
use crate::{
    domain::{
        change::{ChangeState, SentDevice},
        clock::Timestamp,
        device_states::DeviceRef,
        identifier::ReportedId,
        matching::{MatchKey, can_be_same_device, find_device},
        newtypes::ChangeId,
        result::Match,
    },
    journal::{Event, JournalError, Stray, What},
};

impl Batch<'_> {
    /// Joins a stray to the one device of its change that has these identifiers, all of one device.
    /// Changes nothing where that is not exactly one, or where anything contradicts it.
    pub(in crate::journal) fn name_stray(
        &mut self,
        change_id: ChangeId,
        number: u64,
        listed: &[ReportedId],
        now: Timestamp,
    ) -> Applied<bool> {
        let connection = self.connection;
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        let Some(named) = ids_of(connection, id, number)? else {
            // It has been joined to another by a callback that came meanwhile.
            return Ok(Ok(false));
        };
        let loaded = self.load(id)?;
        let (kind, count) = (loaded.change.change_type, loaded.change.device_count);
        let found = find_device(kind, count, listed, |key| sent_with(connection, id, key))?;
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
        let mut answers = Answers {
            connection,
            change: id,
        };
        if !loaded.tally.try_merge(&mut answers, &keys, index)? {
            return Ok(Ok(false));
        }
        loaded.change.counts = loaded.tally.counts(count);
        loaded.change.touch(now);
        loaded.changed = true;
        let entry = Entry::Named {
            change_id,
            device: index,
            ids: listed.to_vec(),
        };
        // The finding is an event of its own: what was told before stays as it was told.
        let position = self.append(&entry, now, None, None)?;
        self.push_state(id, position, 0)?;
        self.complete(id, position, 1, now)?;
        Ok(Ok(true))
    }
}

/// The identifiers that a stray was told with; `None` when it is none any more.
fn ids_of(
    connection: &Connection,
    change: i64,
    number: u64,
) -> rusqlite::Result<Option<Vec<ReportedId>>> {
    let body: Option<String> = connection
        .prepare_cached(
            "SELECT e.body FROM stray s JOIN entry e ON e.position = s.number
             WHERE s.change = ? AND s.number = ?",
        )?
        .query_row([change, int(number)], |row| row.get(0))
        .optional()?;
    body.map(|body| read_ids(&body)).transpose()
}

fn read_ids(body: &str) -> rusqlite::Result<Vec<ReportedId>> {
    Ok(match from_json(body)? {
        Entry::Result { report, .. } => report.device_ids,
        Entry::Queued { .. } | Entry::Step { .. } | Entry::Named { .. } => Vec::new(),
    })
}

/// Strays of changes that are open, or about which something was heard since a time; those after a
/// number, in order.
pub(in crate::journal) fn strays(
    connection: &Connection,
    since: Timestamp,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Stray>> {
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
        strays.push(Stray {
            change_id: ChangeId::from_bytes(row.get(0)?),
            number: uint(row.get(1)?),
            ids: read_ids(row.get_ref(2)?.as_str()?)?,
        });
    }
    Ok(strays)
}

/// Says of each result that matched no device which one it is known to be of by now.
pub(crate) fn tell_names(connection: &Connection, events: &mut [Event]) -> rusqlite::Result<()> {
    for event in events {
        if let What::Result(result) = &mut event.what
            && result.matched == Some(Match::None)
            && let Some(change_id) = result.change_id
        {
            result.named = owner(connection, change_id, &result.report.device_ids)?;
        }
    }
    Ok(())
}

fn owner(
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
            && let DeviceRef::Device(index) = group_of(group)
        {
            return Ok(Some((index, from_json(&sent)?)));
        }
    }
    Ok(None)
}
