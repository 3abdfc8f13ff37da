//! The device states of one change (see [`domain::device_states`](crate::domain::device_states)).

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{
        device_states::{DeviceRef, DeviceState, DeviceStateStore},
        matching::MatchKey,
    },
    journal::sqlite::tables::CachedSql,
};

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
