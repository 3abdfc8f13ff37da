//! The devices of changes, the identifiers that find them, and their states.

use rusqlite::{Connection, Result, Row, ToSql, params};

use crate::{
    domain::{
        change::{Change, SentDevice},
        device_states::{DeviceRef, DeviceState, DeviceStateStore},
        identifier::{DeviceId, ReportedId},
        matching::{MatchKey, find_device},
        newtypes::ChangeId,
        result::{Match, Outcome, ResultPrecedence},
    },
    journal::{
        ChangeDevice, DeviceFilter, DeviceOutcome,
        sqlite::tables::{
            CachedSql,
            columns::{Json, decode_result},
        },
    },
    operations,
};

/// True if a device was sent with an identifier. The index key alone equates ICCIDs that differ only
/// in a trailing check digit.
pub(super) fn has_identifier(device: &SentDevice, key: &MatchKey) -> bool {
    let mut ids = device.ids.iter();
    ids.any(|id| MatchKey::from_id(id).is_same(key))
}

/// Returns the keys of reported identifiers that identify a device of the change.
pub(super) fn identifying_keys(change: &Change, ids: &[ReportedId]) -> Vec<MatchKey> {
    let kinds = operations::evidence(change.change_type).identifying_kinds;
    ids.iter().filter_map(MatchKey::from_reported).filter(|key| key.is_identifying(kinds)).collect()
}

/// Returns the devices of a change that were sent with an identifier that has this index key.
pub(super) fn find_by_key(
    db: &Connection,
    change: i64,
    key: &MatchKey,
) -> Result<Vec<(u32, DeviceId)>> {
    let devices: Vec<(u32, Json<SentDevice>)> = db.list(
        "SELECT d.device_index, d.sent_json FROM device_key k
         JOIN device d USING (change, device_index)
         WHERE k.match_key = ? AND k.change = ? LIMIT 20",
        params![key.index_key(), change],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let ids = devices.into_iter().flat_map(|(index, Json(device))| {
        let ids = device.ids.into_iter();
        ids.map(move |id| (index, id))
    });
    Ok(ids.filter(|(_, id)| MatchKey::from_id(id).index_key() == key.index_key()).collect())
}

/// Finds the device of a change that has the reported identifiers.
pub(super) fn find_reported(
    db: &Connection,
    id: i64,
    change: &Change,
    reported: &[ReportedId],
) -> Result<(Option<u32>, Match)> {
    let kinds = operations::evidence(change.change_type).identifying_kinds;
    find_device(kinds, change.device_count, reported, |key| find_by_key(db, id, key))
}

pub(super) fn insert(
    db: &Connection,
    id: i64,
    change: &Change,
    devices: &[SentDevice],
) -> Result<()> {
    let identifying = operations::evidence(change.change_type).identifying_kinds;
    let mut device_row = db.prepare_cached(
        "INSERT INTO device (change, device_index, sent_json, identifier_kinds)
         VALUES (?, ?, ?, ?)",
    )?;
    let mut key_row = db.prepare_cached(
        "INSERT OR IGNORE INTO device_key (match_key, change, device_index) VALUES (?, ?, ?)",
    )?;
    for (index, device) in (0_i64..).zip(devices) {
        let mut kinds = 0;
        for key in device.ids.iter().map(MatchKey::from_id) {
            if key.is_identifying(identifying) {
                kinds |= key.kind_bit();
            }
            key_row.execute(params![key.index_key(), id, index])?;
        }
        device_row.execute(params![id, index, Json(device), kinds])?;
    }
    Ok(())
}

/// Loads the devices of a change as they were sent, by index.
pub(super) fn load_sent(db: &Connection, change: i64) -> Result<Vec<SentDevice>> {
    db.list(
        "SELECT sent_json FROM device WHERE change = ? ORDER BY device_index",
        [change],
        |row| row.get(0).map(|Json(device)| device),
    )
}

/// Records the devices that were on the plan before the change was sent.
pub(super) fn record_on_plan(db: &Connection, change: i64, on_plan: &[u32]) -> Result<()> {
    db.execute_cached(
        "UPDATE device SET on_plan = NULL WHERE change = ? AND on_plan = 1",
        [change],
    )?;
    for index in on_plan {
        db.execute_cached(
            "UPDATE device SET on_plan = 1 WHERE change = ? AND device_index = ?",
            params![change, index],
        )?;
    }
    Ok(())
}

pub(crate) fn devices(
    db: &Connection,
    id: ChangeId,
    filter: &DeviceFilter,
) -> Result<Vec<ChangeDevice>> {
    let mut sql = "SELECT d.device_index, d.sent_json, d.on_plan, d.precedence, e.result_json,
           r.evidence, e.match_kind, e.time
         FROM device d
         LEFT JOIN log_entry e ON e.position = d.decided_by
         LEFT JOIN request r ON r.id = e.request
         WHERE d.change = (SELECT id FROM change WHERE change_id = ?1 AND trimmed = 0)
           AND d.device_index >= ?2"
        .to_owned();
    if !filter.outcomes.is_empty() {
        let conditions: Vec<&str> = filter.outcomes.iter().map(outcome_condition).collect();
        sql.push_str(&format!(" AND ({})", conditions.join(" OR ")));
    }
    let mut values: Vec<&dyn ToSql> = vec![&id, &filter.from];
    let key = filter.device.as_ref().map(MatchKey::from_id);
    let index_key = key.as_ref().map(MatchKey::index_key);
    if let Some(index_key) = &index_key {
        sql.push_str(
            " AND d.device_index IN
               (SELECT k.device_index FROM device_key k WHERE k.match_key = ?3 AND k.change = d.change)",
        );
        values.push(index_key);
    }
    sql.push_str(" ORDER BY d.device_index");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    let mut devices = Vec::new();
    while devices.len() < filter.limit
        && let Some(row) = rows.next()?
    {
        let device = decode_device(row, id)?;
        if key.as_ref().is_none_or(|key| has_identifier(&device.sent, key)) {
            devices.push(device);
        }
    }
    Ok(devices)
}

/// Successes have an odd number, see `columns`.
fn outcome_condition(outcome: &DeviceOutcome) -> &'static str {
    match outcome {
        DeviceOutcome::Pending => "d.precedence IS NULL",
        DeviceOutcome::Succeeded => "d.precedence % 2 = 1",
        DeviceOutcome::Failed => "d.precedence % 2 = 0",
    }
}

fn decode_device(row: &Row<'_>, change_id: ChangeId) -> Result<ChangeDevice> {
    let index = row.get(0)?;
    let Json(sent) = row.get::<_, Json<SentDevice>>(1)?;
    let precedence: Option<ResultPrecedence> = row.get(3)?;
    let result = match row.get_ref(4)?.as_str_or_null()? {
        None => None,
        Some(_) => {
            let device = Some((index, sent.clone()));
            Some(Box::new(decode_result(row, 4, Some(change_id), device, String::new())?))
        }
    };
    Ok(ChangeDevice {
        index,
        sent,
        was_on_plan: row.get::<_, Option<bool>>(2)?.is_some(),
        outcome: match precedence.map(|precedence| precedence.outcome) {
            None => DeviceOutcome::Pending,
            Some(Outcome::Succeeded) => DeviceOutcome::Succeeded,
            Some(Outcome::Failed | Outcome::Interim) => DeviceOutcome::Failed,
        },
        result,
    })
}

/// The device states of one change (see [`domain::device_states`](crate::domain::device_states)).
pub(super) struct DeviceStateTable<'c> {
    pub(super) db: &'c Connection,
    pub(super) change: i64,
}

impl DeviceStateStore for DeviceStateTable<'_> {
    type Error = rusqlite::Error;

    fn state(&mut self, device: DeviceRef) -> Result<DeviceState> {
        let (sql, number) = match device {
            DeviceRef::Device(index) => (
                "SELECT identifier_kinds, precedence, decided_by FROM device
                 WHERE change = ? AND device_index = ?",
                index.into(),
            ),
            DeviceRef::UnmatchedResult(first_result) => (
                "SELECT identifier_kinds, precedence, decided_by FROM unmatched_result
                 WHERE change = ? AND first_result = ?",
                first_result,
            ),
        };
        let state = self.db.find(sql, params![self.change, number], |row| {
            Ok(DeviceState {
                kind_mask: row.get(0)?,
                precedence: row.get(1)?,
                decided_by: row.get(2)?,
            })
        })?;
        Ok(state.unwrap_or_default())
    }

    fn put_state(&mut self, device: DeviceRef, state: DeviceState) -> Result<()> {
        let (sql, number) = match device {
            DeviceRef::Device(index) => (
                "UPDATE device SET identifier_kinds = ?3, precedence = ?4, decided_by = ?5
                 WHERE change = ?1 AND device_index = ?2",
                index.into(),
            ),
            DeviceRef::UnmatchedResult(first_result) => (
                "INSERT OR REPLACE INTO unmatched_result
                   (change, first_result, identifier_kinds, precedence, decided_by)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                first_result,
            ),
        };
        self.db.execute_cached(
            sql,
            params![self.change, number, state.kind_mask, state.precedence, state.decided_by],
        )?;
        Ok(())
    }

    fn owner(&mut self, key: &MatchKey) -> Result<Option<DeviceRef>> {
        self.db.find(
            "SELECT owner FROM identifier_owner WHERE change = ? AND identifier = ?",
            params![self.change, key.to_string()],
            |row| row.get(0),
        )
    }

    fn put_owner(&mut self, key: &MatchKey, owner: DeviceRef) -> Result<()> {
        self.db.execute_cached(
            "INSERT INTO identifier_owner (change, identifier, owner) VALUES (?, ?, ?)",
            params![self.change, key.to_string(), owner],
        )?;
        Ok(())
    }

    fn merge(&mut self, unmatched: i64, into: DeviceRef) -> Result<()> {
        self.db.execute_cached(
            "UPDATE identifier_owner SET owner = ? WHERE change = ? AND owner = ?",
            params![into, self.change, DeviceRef::UnmatchedResult(unmatched)],
        )?;
        self.db.execute_cached(
            "DELETE FROM unmatched_result WHERE change = ? AND first_result = ?",
            params![self.change, unmatched],
        )?;
        Ok(())
    }
}
