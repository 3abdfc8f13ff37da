//! Results: whose they are, where they stand in a timeline, and what they
//! come to.

use rusqlite::{Connection, params};

use super::{
    apply::WriteBatch,
    device_state_store::DeviceStateTable,
    entry::{LogEntry, from_json, match_code, uint},
};
use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        device_states::DeviceStates,
        identifier::DeviceId,
        matching::{MatchKey, find_device},
        newtypes::RequestId,
        result::{DeviceResult, Match},
        state::{ChangeState, Transition},
    },
    invariants::Invariant,
    journal::WatchTarget,
    operations,
};

impl WriteBatch<'_> {
    /// Binds a request to a change. The results that it has already take their
    /// places at the binding, in stored order: a token that was given out
    /// before stays true.
    pub(crate) fn link_request(
        &mut self,
        change: i64,
        position: i64,
        request_id: &RequestId,
        evidence: &str,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        self.touched
            .insert(WatchTarget::Request(request_id.clone()));
        let request = self.request_row(request_id, now)?;
        if request.change.is_some() {
            // ThingSpace gave one id to two requests. The first keeps it: whose
            // the results are cannot be told, and nothing is invented.
            tracing::error!(%request_id, "ThingSpace answered two changes with one request id");
            return Ok(());
        }
        self.connection
            .prepare_cached(
                "UPDATE request SET change = ?, bound_at = ?, evidence = ? WHERE id = ?",
            )?
            .execute(params![change, position, evidence, request.id])?;
        let early: Vec<i64> = self
            .connection
            .prepare_cached("SELECT position FROM entry WHERE request = ? ORDER BY position")?
            .query_map([request.id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut index = 1;
        for entry in early {
            if let Some(report) = self.load_report(entry)? {
                self.append_result_event(change, position, index, entry, &report, now)?;
                index += 1;
            }
        }
        self.finish_if_complete(change, position, index, now)
    }

    /// Gives a result its place in a change's timeline, and counts it.
    pub(crate) fn append_result_event(
        &mut self,
        change: i64,
        position: i64,
        index: i64,
        entry: i64,
        report: &DeviceResult,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let connection = self.connection;
        let loaded = self.load(change)?;
        let kind = operations::evidence(loaded.change.change_type).identifying_kinds;
        let (device, mut matched) = find_device(
            kind,
            loaded.change.device_count,
            &report.device_ids,
            |key| find_devices_by_key(connection, change, key),
        )?;
        let keys: Vec<MatchKey> = report
            .device_ids
            .iter()
            .filter_map(MatchKey::from_reported)
            .filter(|key| key.is_identifying(kind))
            .collect();
        let mut answers = DeviceStateTable { connection, change };
        if matched == Match::None && DeviceStates::is_ambiguous(&mut answers, &keys)? {
            matched = Match::Ambiguous;
        }
        if matched != Match::Ambiguous || Invariant::AmbiguousResults.is_disabled() {
            loaded
                .device_states
                .record(&mut answers, &keys, device, report.precedence(), entry)?;
        }
        loaded.change.counts = loaded.device_states.counts(loaded.change.device_count);
        loaded.change.touch(now);
        loaded.is_dirty = true;

        connection
            .prepare_cached("UPDATE entry SET device = ?, match = ? WHERE position = ?")?
            .execute(params![device, match_code(matched), entry])?;
        connection
            .prepare_cached(
                "INSERT INTO timeline (change, position, idx, entry) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![change, position, index, entry])?;
        self.mark_touched(change);
        Ok(())
    }

    /// Finishes a change once every device has a final result.
    pub(crate) fn finish_if_complete(
        &mut self,
        id: i64,
        position: i64,
        index: i64,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let change = &self.load(id)?.change;
        let is_open = matches!(change.state, ChangeState::Accepted | ChangeState::Overdue);
        if is_open && change.pending_count() == 0 {
            self.advance(id, &Transition::Finish, now)?;
            self.append_state_event(id, position, index)?;
        }
        Ok(())
    }

    fn load_report(&self, position: i64) -> rusqlite::Result<Option<DeviceResult>> {
        let body: String = self
            .connection
            .prepare_cached("SELECT body FROM entry WHERE position = ?")?
            .query_row([position], |row| row.get(0))?;
        Ok(match from_json(&body)? {
            LogEntry::Result { report, .. } => Some(*report),
            LogEntry::Queued { .. }
            | LogEntry::Transition { .. }
            | LogEntry::DeviceResolved { .. } => None,
        })
    }
}

/// The devices of a change that were sent with an identifier of this look-up.
pub(crate) fn find_devices_by_key(
    connection: &Connection,
    change: i64,
    key: &MatchKey,
) -> rusqlite::Result<Vec<(u32, DeviceId)>> {
    let mut statement = connection.prepare_cached(
        "SELECT d.idx, d.sent FROM device_key k JOIN device d USING (change, idx)
         WHERE k.key = ? AND k.change = ? LIMIT 20",
    )?;
    let mut rows = statement.query(params![key.index_key(), change])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let index = uint(row.get(0)?);
        let device: SentDevice = from_json(row.get_ref(1)?.as_str()?)?;
        let ids = device.ids.into_iter();
        found.extend(
            ids.filter(|id| MatchKey::from_id(id).index_key() == key.index_key())
                .map(|id| (index, id)),
        );
    }
    Ok(found)
}
