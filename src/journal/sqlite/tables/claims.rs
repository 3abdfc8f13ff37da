//! Claims: a new change takes its key and its devices.

use std::collections::HashSet;

use rusqlite::{Result, params};

use crate::{
    domain::{
        change::SentDevice,
        device_states::DeviceStates,
        matching::MatchKey,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        BusyDevice, Claim, Intent,
        sqlite::tables::{
            CachedSql,
            batch::{CommandError, WriteBatch},
            columns::{Json, state_codes},
            devices, timeline,
        },
    },
    operations,
};

/// Returns the result that a claim would have. Changes nothing.
pub(crate) fn check_claim(batch: &mut WriteBatch<'_>, intent: &Intent) -> Result<Claim> {
    let existing: Option<(i64, [u8; 32])> = batch.db.find(
        "SELECT id, fingerprint FROM change WHERE account = ? AND key = ?",
        params![intent.change.account, intent.change.key],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if let Some((id, fingerprint)) = existing {
        let change = &batch.load(id)?.change;
        let has_same_content = fingerprint == intent.fingerprint;
        if !has_same_content || change.state != ChangeState::NotSent {
            return Ok(Claim::KeyInUse { change: change.clone(), has_same_content });
        }
    }
    if let Some(busy) = find_busy_device(batch, intent)? {
        return Ok(Claim::Busy(busy));
    }
    Ok(match existing {
        Some((id, _)) => Claim::Rearmed {
            change: batch.load(id)?.change.clone(),
            devices: devices::load_sent(batch.db, id)?,
        },
        None => Claim::Created(intent.change.clone()),
    })
}

/// Stores a change, or queues a NOT_SENT change again, if the key and the devices are free.
pub(crate) fn claim(batch: &mut WriteBatch<'_>, intent: &Intent) -> Result<Claim, CommandError> {
    match check_claim(batch, intent)? {
        Claim::Created(change) => {
            let position = batch.append(change.create_time)?;
            insert_change(batch, position, intent)?;
            batch.append_state_event(position, position, 0)?;
            Ok(Claim::Created(change))
        }
        Claim::Rearmed { change, devices } => {
            let (id, now) = (change.change_id, intent.change.create_time);
            let change = timeline::apply_transition(batch, id, &Transition::Rearm, now)?;
            Ok(Claim::Rearmed { change, devices })
        }
        Claim::KeyInUse { .. } if failpoints::is_active("no-key-check") => {
            let mut without_key = intent.clone();
            without_key.change.key = None;
            claim(batch, &without_key)
        }
        rejected @ (Claim::KeyInUse { .. } | Claim::Busy(_)) => Ok(rejected),
    }
}

/// Returns the first device that another unfinished change has.
fn find_busy_device(batch: &WriteBatch<'_>, intent: &Intent) -> Result<Option<BusyDevice>> {
    let unfinished = unfinished_changes(batch)?;
    if unfinished.is_empty() {
        return Ok(None);
    }
    let mut statement = batch.db.prepare_cached(
        "SELECT k.change, d.sent_json, c.change_id FROM device_key k
         JOIN device d USING (change, device_index) JOIN change c ON c.id = k.change
         WHERE k.match_key = ?",
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
                let Json(sent) = row.get::<_, Json<SentDevice>>(1)?;
                if devices::has_identifier(&sent, &key) {
                    let change_id = row.get(2)?;
                    return Ok(Some(BusyDevice { device_index, change_id }));
                }
            }
        }
    }
    Ok(None)
}

fn unfinished_changes(batch: &WriteBatch<'_>) -> Result<HashSet<i64>> {
    let states = state_codes(ChangeState::has_device_lock);
    let sql = format!("SELECT id FROM change WHERE state IN ({states})");
    let ids = batch.db.list(&sql, [], |row| row.get(0))?;
    let mut unfinished: HashSet<i64> = ids.into_iter().collect();
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

fn insert_change(batch: &mut WriteBatch<'_>, id: i64, intent: &Intent) -> Result<()> {
    let change = &intent.change;
    batch.db.execute_cached(
        "INSERT INTO change (id, change_id, account, key, fingerprint, state, create_time,
           update_time, snapshot, device_states)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            id,
            change.change_id,
            change.account,
            change.key,
            intent.fingerprint,
            change.state,
            change.create_time,
            change.update_time,
            Json(change),
            Json(DeviceStates::default()),
        ],
    )?;
    batch.counts.states.add(change.state, 1);
    devices::insert(batch.db, id, change, &intent.devices)
}
