//! The devices of changes, and the identifiers that find them.

use rusqlite::{Connection, Row, params, types::Value};

use crate::journal::sqlite::tables::{
    codes::{match_from_code, precedence_from_code},
    encoding::{StoredResult, from_json, json, uint},
    sql,
};
use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        evidence::IdentifyingKinds,
        identifier::{DeviceId, ReportedId},
        matching::MatchKey,
        newtypes::ChangeId,
        result::Outcome,
    },
    journal::{
        changes::{ChangeDevice, DeviceFilter, DeviceOutcome},
        events::ResultEvent,
    },
};

/// True if a device was sent with an identifier. The index key alone equates ICCIDs that differ only
/// in a trailing check digit.
pub(super) fn has_identifier(device: &SentDevice, key: &MatchKey) -> bool {
    let mut ids = device.ids.iter();
    ids.any(|id| MatchKey::from_id(id).is_same(key))
}

/// Returns the keys of reported identifiers that identify a device.
pub(super) fn identifying_keys(ids: &[ReportedId], kinds: IdentifyingKinds) -> Vec<MatchKey> {
    ids.iter().filter_map(MatchKey::from_reported).filter(|key| key.is_identifying(kinds)).collect()
}

/// Returns the devices of a change that were sent with an identifier that has this index key.
pub(super) fn find_by_key(
    connection: &Connection,
    change: i64,
    key: &MatchKey,
) -> rusqlite::Result<Vec<(u32, DeviceId)>> {
    let devices: Vec<(u32, SentDevice)> = sql::list(
        connection,
        "SELECT d.device_index, d.sent_json FROM device_key k
         JOIN device d USING (change, device_index)
         WHERE k.match_key = ? AND k.change = ? LIMIT 20",
        params![key.index_key(), change],
        |row| Ok((uint(row.get(0)?), from_json(row.get_ref(1)?.as_str()?)?)),
    )?;
    let ids = devices.into_iter().flat_map(|(index, device)| {
        let ids = device.ids.into_iter();
        ids.map(move |id| (index, id))
    });
    Ok(ids.filter(|(_, id)| MatchKey::from_id(id).index_key() == key.index_key()).collect())
}

pub(super) fn insert(
    connection: &Connection,
    change: i64,
    identifying: IdentifyingKinds,
    devices: &[SentDevice],
) -> rusqlite::Result<()> {
    let mut device_row = connection.prepare_cached(
        "INSERT INTO device (change, device_index, sent_json, identifier_kinds)
         VALUES (?, ?, ?, ?)",
    )?;
    let mut key_row = connection.prepare_cached(
        "INSERT OR IGNORE INTO device_key (match_key, change, device_index) VALUES (?, ?, ?)",
    )?;
    for (index, device) in (0_i64..).zip(devices) {
        let mut kinds = 0;
        for key in device.ids.iter().map(MatchKey::from_id) {
            if key.is_identifying(identifying) {
                kinds |= key.kind_bit();
            }
            key_row.execute(params![key.index_key(), change, index])?;
        }
        device_row.execute(params![change, index, json(device)?, kinds])?;
    }
    Ok(())
}

/// Loads the devices of a change as they were sent, by index.
pub(super) fn load_sent(connection: &Connection, change: i64) -> rusqlite::Result<Vec<SentDevice>> {
    sql::list(
        connection,
        "SELECT sent_json FROM device WHERE change = ? ORDER BY device_index",
        [change],
        |row| from_json(row.get_ref(0)?.as_str()?),
    )
}

/// Records the devices that were on the plan before the change was sent.
pub(super) fn record_on_plan(
    connection: &Connection,
    change: i64,
    on_plan: &[u32],
) -> rusqlite::Result<()> {
    sql::execute(
        connection,
        "UPDATE device SET on_plan = NULL WHERE change = ? AND on_plan = 1",
        [change],
    )?;
    for index in on_plan {
        sql::execute(
            connection,
            "UPDATE device SET on_plan = 1 WHERE change = ? AND device_index = ?",
            params![change, index],
        )?;
    }
    Ok(())
}

pub(crate) fn devices(
    connection: &Connection,
    id: ChangeId,
    filter: &DeviceFilter,
) -> rusqlite::Result<Vec<ChangeDevice>> {
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
    let key = filter.device.as_ref().map(MatchKey::from_id);
    if key.is_some() {
        sql.push_str(
            " AND d.device_index IN
               (SELECT k.device_index FROM device_key k WHERE k.match_key = ?3 AND k.change = d.change)",
        );
    }
    sql.push_str(" ORDER BY d.device_index");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut values: Vec<Value> = vec![id.as_bytes().to_vec().into(), filter.from.into()];
    values.extend(key.as_ref().map(|key| Value::from(key.index_key())));
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
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

/// See [`precedence_code`](super::codes::precedence_code): successes are odd.
fn outcome_condition(outcome: &DeviceOutcome) -> &'static str {
    match outcome {
        DeviceOutcome::Pending => "d.precedence IS NULL",
        DeviceOutcome::Succeeded => "d.precedence % 2 = 1",
        DeviceOutcome::Failed => "d.precedence % 2 = 0",
    }
}

fn decode_device(row: &Row<'_>, change_id: ChangeId) -> rusqlite::Result<ChangeDevice> {
    let index = uint(row.get(0)?);
    let sent: SentDevice = from_json(row.get_ref(1)?.as_str()?)?;
    let result = match row.get_ref(4)?.as_str_or_null()? {
        None => None,
        Some(result) => {
            let result = StoredResult::decode(result, row.get(5)?)?;
            Some(Box::new(ResultEvent {
                change_id: Some(change_id),
                device: Some((index, sent.clone())),
                matched: row.get::<_, Option<i64>>(6)?.map(match_from_code),
                resolved_device: None,
                report: result.report,
                service: result.service,
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
            Some(precedence) if precedence.outcome == Outcome::Succeeded => {
                DeviceOutcome::Succeeded
            }
            Some(_) => DeviceOutcome::Failed,
        },
        result,
    })
}
