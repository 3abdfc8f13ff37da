//! Claims: a new change takes its key and its devices.

use std::collections::HashSet;

use rusqlite::params;

use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    changes,
    codes::state_code,
    devices,
    encoding::{from_json, json},
    sql, transitions,
};
use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Timestamp,
        device_states::DeviceStates,
        matching::MatchKey,
        newtypes::ChangeId,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        changes::{BusyDevice, Claim, ClaimCheck, Intent},
        error::JournalError,
    },
    operations,
};

/// Returns the result that a claim would have. Changes nothing.
pub(crate) fn check_claim(
    batch: &mut WriteBatch<'_>,
    intent: &Intent,
) -> rusqlite::Result<ClaimCheck> {
    let existing = find_by_key(batch, &intent.change)?;
    if let Some((change, fingerprint)) = &existing {
        let has_same_content = fingerprint == intent.fingerprint.as_slice();
        if !has_same_content || change.state != ChangeState::NotSent {
            return Ok(ClaimCheck::KeyInUse { change: change.clone(), has_same_content });
        }
    }
    Ok(match find_busy_device(batch, intent)? {
        Some(busy) => ClaimCheck::Busy(busy),
        None => existing.map_or(ClaimCheck::Free, |(change, _)| ClaimCheck::Rearm(change)),
    })
}

/// Stores a change, or queues a NOT_SENT change again, if the key and the devices are free.
pub(crate) fn claim(batch: &mut WriteBatch<'_>, intent: &Intent) -> ApplyResult<Claim> {
    match check_claim(batch, intent)? {
        ClaimCheck::Free => {}
        ClaimCheck::Rearm(change) => {
            return rearm(batch, change.change_id, intent.change.create_time);
        }
        ClaimCheck::KeyInUse { .. } if failpoints::is_active("no-key-check") => {
            let mut without_key = intent.clone();
            without_key.change.key = None;
            return claim(batch, &without_key);
        }
        ClaimCheck::KeyInUse { change, has_same_content } => {
            return Ok(Ok(Claim::KeyInUse { change, has_same_content }));
        }
        ClaimCheck::Busy(busy) => return Ok(Ok(Claim::Busy(busy))),
    }
    let change = &intent.change;
    let position = batch.append(change.create_time)?;
    insert_change(batch, position, intent)?;
    batch.append_state_event(position, position, 0)?;
    Ok(Ok(Claim::Created(change.clone())))
}

/// Queues a NOT_SENT change again, under its first id.
fn rearm(batch: &mut WriteBatch<'_>, change_id: ChangeId, now: Timestamp) -> ApplyResult<Claim> {
    let transition = Transition::Rearm;
    let change = match transitions::apply_transition(batch, change_id, &transition, now)? {
        Ok(change) => change,
        Err(error) => return Ok(Err(error)),
    };
    let Some(id) = changes::find_row(batch.connection, change_id)? else {
        return Ok(Err(JournalError::NoSuchChange));
    };
    let devices = devices::load_sent(batch.connection, id)?;
    Ok(Ok(Claim::Rearmed { change, devices }))
}

fn find_by_key(
    batch: &mut WriteBatch<'_>,
    change: &Change,
) -> rusqlite::Result<Option<(Change, Vec<u8>)>> {
    let Some(key) = &change.key else {
        return Ok(None);
    };
    let found: Option<(i64, Vec<u8>)> = sql::find(
        batch.connection,
        "SELECT id, fingerprint FROM change WHERE account = ? AND key = ?",
        [change.account.as_str(), key.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match found {
        Some((id, fingerprint)) => Ok(Some((batch.load(id)?.change.clone(), fingerprint))),
        None => Ok(None),
    }
}

/// Returns the first device that another unfinished change has.
fn find_busy_device(
    batch: &WriteBatch<'_>,
    intent: &Intent,
) -> rusqlite::Result<Option<BusyDevice>> {
    let unfinished = unfinished_changes(batch)?;
    if unfinished.is_empty() {
        return Ok(None);
    }
    let mut statement = batch.connection.prepare_cached(
        "SELECT k.change, d.sent_json FROM device_key k
         JOIN device d USING (change, device_index) WHERE k.match_key = ?",
    )?;
    let kinds = operations::evidence(intent.change.change_type).identifying_kinds;
    for (device_index, device) in (0_u32..).zip(&intent.devices) {
        for key in device.ids.iter().map(MatchKey::from_id) {
            if !key.is_identifying(kinds) {
                continue;
            }
            let mut rows = statement.query([key.index_key()])?;
            while let Some(row) = rows.next()? {
                let other: i64 = row.get(0)?;
                if !unfinished.contains(&other) {
                    continue;
                }
                let sent: SentDevice = from_json(row.get_ref(1)?.as_str()?)?;
                if devices::has_identifier(&sent, &key) {
                    return Ok(Some(BusyDevice {
                        device_index,
                        change_id: changes::change_id(batch.connection, other)?,
                    }));
                }
            }
        }
    }
    Ok(None)
}

fn unfinished_changes(batch: &WriteBatch<'_>) -> rusqlite::Result<HashSet<i64>> {
    let mut unfinished = HashSet::new();
    for state in ChangeState::ALL {
        if state.has_device_lock() {
            unfinished.extend(sql::list(
                batch.connection,
                "SELECT id FROM change WHERE state = ?",
                [state_code(state)],
                |row| row.get::<_, i64>(0),
            )?);
        }
    }
    // The table does not have the transitions of this batch yet.
    for (id, loaded) in &batch.changes {
        if loaded.change.state.has_device_lock() {
            unfinished.insert(*id);
        } else {
            unfinished.remove(id);
        }
    }
    Ok(unfinished)
}

fn insert_change(batch: &mut WriteBatch<'_>, id: i64, intent: &Intent) -> rusqlite::Result<()> {
    let change = &intent.change;
    sql::execute(
        batch.connection,
        "INSERT INTO change (id, change_id, account, key, fingerprint, state, create_time,
           update_time, snapshot, device_states)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            change.change_id.as_bytes().as_slice(),
            change.account.as_str(),
            change.key.as_ref().map(|key| key.as_str()),
            intent.fingerprint.as_slice(),
            state_code(change.state),
            change.create_time.as_micros(),
            change.update_time.as_micros(),
            json(change)?,
            json(&DeviceStates::default())?,
        ],
    )?;
    batch.state_count_delta.add(change.state, 1);
    let kinds = operations::evidence(change.change_type).identifying_kinds;
    devices::insert(batch.connection, id, kinds, &intent.devices)
}
