//! Where the groups of [`domain::tally`](crate::domain::tally) are kept.

use rusqlite::{Connection, OptionalExtension, params};

use super::entry::{precedence_code, precedence_from_code, uint};
use crate::domain::{
    device_states::{DeviceRef, DeviceState, DeviceStateStore},
    matching::MatchKey,
};

/// The groups of one change.
pub(crate) struct DeviceStateTable<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) change: i64,
}

/// Devices are their index, strays are below zero.
fn device_ref_code(group: DeviceRef) -> i64 {
    match group {
        DeviceRef::Device(index) => i64::from(index),
        DeviceRef::UnmatchedResult(number) => -1 - number,
    }
}

pub(crate) fn device_ref_from_code(code: i64) -> DeviceRef {
    if code < 0 {
        DeviceRef::UnmatchedResult(-1 - code)
    } else {
        DeviceRef::Device(uint(code))
    }
}

impl DeviceStateStore for DeviceStateTable<'_> {
    type Error = rusqlite::Error;

    fn state(&mut self, group: DeviceRef) -> rusqlite::Result<DeviceState> {
        let (sql, number) = match group {
            DeviceRef::Device(index) => (
                "SELECT kinds, verdict, decided_by FROM device WHERE change = ? AND idx = ?",
                i64::from(index),
            ),
            DeviceRef::UnmatchedResult(number) => (
                "SELECT kinds, verdict, decided_by FROM stray WHERE change = ? AND number = ?",
                number,
            ),
        };
        let answer = self
            .connection
            .prepare_cached(sql)?
            .query_row(params![self.change, number], |row| {
                Ok(DeviceState {
                    kind_mask: uint(row.get(0)?),
                    precedence: row.get::<_, Option<i64>>(1)?.map(precedence_from_code),
                    decided_by: row.get(2)?,
                })
            })
            .optional()?;
        Ok(answer.unwrap_or_default())
    }

    fn put_state(&mut self, group: DeviceRef, answer: DeviceState) -> rusqlite::Result<()> {
        let verdict = answer.precedence.map(precedence_code);
        match group {
            DeviceRef::Device(index) => self
                .connection
                .prepare_cached(
                    "UPDATE device SET kinds = ?, verdict = ?, decided_by = ?
                     WHERE change = ? AND idx = ?",
                )?
                .execute(params![
                    answer.kind_mask,
                    verdict,
                    answer.decided_by,
                    self.change,
                    index
                ])?,
            DeviceRef::UnmatchedResult(number) => self
                .connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO stray (change, number, kinds, verdict, decided_by)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    self.change,
                    number,
                    answer.kind_mask,
                    verdict,
                    answer.decided_by
                ])?,
        };
        Ok(())
    }

    fn owner(&mut self, key: &MatchKey) -> rusqlite::Result<Option<DeviceRef>> {
        let owner = self
            .connection
            .prepare_cached("SELECT grp FROM named WHERE change = ? AND key = ?")?
            .query_row(params![self.change, key.to_string()], |row| row.get(0))
            .optional()?;
        Ok(owner.map(device_ref_from_code))
    }

    fn put_owner(&mut self, key: &MatchKey, group: DeviceRef) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT INTO named (change, key, grp) VALUES (?, ?, ?)")?
            .execute(params![
                self.change,
                key.to_string(),
                device_ref_code(group)
            ])?;
        Ok(())
    }

    fn merge(&mut self, stray: i64, into: DeviceRef) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE named SET grp = ? WHERE change = ? AND grp = ?")?
            .execute(params![
                device_ref_code(into),
                self.change,
                device_ref_code(DeviceRef::UnmatchedResult(stray))
            ])?;
        self.connection
            .prepare_cached("DELETE FROM stray WHERE change = ? AND number = ?")?
            .execute(params![self.change, stray])?;
        Ok(())
    }
}
