//! Claims: a change's own rows, and whether its devices are free.

use std::collections::HashSet;

use rusqlite::params;

use super::{
    apply::WriteBatch,
    entry::{from_json, json, state_code},
};
use crate::{
    domain::{
        change::{Change, SentDevice},
        device_states::DeviceStates,
        identifier::DeviceId,
        matching::MatchKey,
        state::ChangeState,
    },
    journal::{BusyDevice, Intent},
    operations,
};

impl WriteBatch<'_> {
    /// The first of these devices that is in another change which is under way.
    pub(crate) fn find_busy_device(
        &self,
        devices: &[SentDevice],
        change: &Change,
    ) -> rusqlite::Result<Option<BusyDevice>> {
        let codes = ChangeState::ALL
            .into_iter()
            .filter(|state| state.has_device_lock())
            .map(state_code);
        let mut under_way = HashSet::new();
        for code in codes {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id FROM change WHERE state = ?")?;
            for id in statement.query_map([code], |row| row.get::<_, i64>(0))? {
                under_way.insert(id?);
            }
        }
        // Changes of this batch are in the table with their first state only.
        for (id, loaded) in &self.changes {
            if loaded.change.state.has_device_lock() {
                under_way.insert(*id);
            } else {
                under_way.remove(id);
            }
        }
        if under_way.is_empty() {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT k.change, d.sent FROM device_key k JOIN device d USING (change, idx) WHERE k.key = ?",
        )?;
        let ids = (0_u32..).zip(devices).flat_map(|(index, device)| {
            let ids = device.ids.iter();
            ids.map(move |id| (index, id))
        });
        for (device_index, id) in ids {
            let key = MatchKey::from_id(id);
            if !key.is_identifying(operations::evidence(change.change_type).identifying_kinds) {
                continue;
            }
            let mut rows = statement.query([key.index_key()])?;
            while let Some(row) = rows.next()? {
                let other: i64 = row.get(0)?;
                if under_way.contains(&other) && has_device(row.get_ref(1)?.as_str()?, id)? {
                    return Ok(Some(BusyDevice {
                        device_index,
                        change_id: self.change_id(other)?,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The devices of a change, by index.
    pub(crate) fn stored_devices(&self, id: i64) -> rusqlite::Result<Vec<SentDevice>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT sent FROM device WHERE change = ? ORDER BY idx")?;
        let mut rows = statement.query([id])?;
        let mut devices = Vec::new();
        while let Some(row) = rows.next()? {
            devices.push(from_json(row.get_ref(0)?.as_str()?)?);
        }
        Ok(devices)
    }

    /// Notes which devices were on the plan before the change was sent.
    pub(crate) fn record_devices_on_plan(&self, id: i64, on_plan: &[u32]) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE device SET on_plan = NULL WHERE change = ? AND on_plan = 1")?
            .execute([id])?;
        let mut note = self
            .connection
            .prepare_cached("UPDATE device SET on_plan = 1 WHERE change = ? AND idx = ?")?;
        for index in on_plan {
            note.execute(params![id, index])?;
        }
        Ok(())
    }

    /// Makes a change's rows: its own, its devices', and what finds them.
    pub(crate) fn insert_change(&mut self, id: i64, intent: &Intent) -> rusqlite::Result<()> {
        let change = &intent.change;
        self.connection
            .prepare_cached(
                "INSERT INTO change
                 (id, change_id, account, key, content, state, create_time, last_time, snapshot, tally)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
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
            ])?;
        self.state_count_delta.add(change.state, 1);
        let mut device_row = self
            .connection
            .prepare_cached("INSERT INTO device (change, idx, sent, kinds) VALUES (?, ?, ?, ?)")?;
        let mut key_row = self.connection.prepare_cached(
            "INSERT OR IGNORE INTO device_key (key, change, idx) VALUES (?, ?, ?)",
        )?;
        for (index, device) in (0_i64..).zip(&intent.devices) {
            let mut kinds = 0;
            for device_id in &device.ids {
                let key = MatchKey::from_id(device_id);
                if key.is_identifying(operations::evidence(change.change_type).identifying_kinds) {
                    kinds |= key.kind_bit();
                }
                key_row.execute(params![key.index_key(), id, index])?;
            }
            device_row.execute(params![id, index, json(device)?, kinds])?;
        }
        Ok(())
    }
}

fn has_device(sent: &str, id: &DeviceId) -> rusqlite::Result<bool> {
    let device: SentDevice = from_json(sent)?;
    Ok(device
        .ids
        .iter()
        .any(|other| MatchKey::from_id(other).is_same(&MatchKey::from_id(id))))
}
