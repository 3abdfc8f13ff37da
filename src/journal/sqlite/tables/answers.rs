//! Where the groups of [`domain::tally`](crate::domain::tally) are kept.

use rusqlite::{Connection, OptionalExtension, params};

use super::entry::{uint, verdict_code, verdict_of};
use crate::domain::{
    matching::MatchKey,
    tally::{Answer, AnswerBook, Group},
};

/// The groups of one change.
pub(crate) struct Answers<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) change: i64,
}

/// Devices are their index, strays are below zero.
fn code(group: Group) -> i64 {
    match group {
        Group::Device(index) => i64::from(index),
        Group::Stray(number) => -1 - number,
    }
}

pub(crate) fn group_of(code: i64) -> Group {
    if code < 0 {
        Group::Stray(-1 - code)
    } else {
        Group::Device(uint(code))
    }
}

impl AnswerBook for Answers<'_> {
    type Error = rusqlite::Error;

    fn answer(&mut self, group: Group) -> rusqlite::Result<Answer> {
        let (sql, number) = match group {
            Group::Device(index) => (
                "SELECT kinds, verdict, decided_by FROM device WHERE change = ? AND idx = ?",
                i64::from(index),
            ),
            Group::Stray(number) => (
                "SELECT kinds, verdict, decided_by FROM stray WHERE change = ? AND number = ?",
                number,
            ),
        };
        let answer = self
            .connection
            .prepare_cached(sql)?
            .query_row(params![self.change, number], |row| {
                Ok(Answer {
                    kinds: uint(row.get(0)?),
                    verdict: row.get::<_, Option<i64>>(1)?.map(verdict_of),
                    decided_by: row.get(2)?,
                })
            })
            .optional()?;
        Ok(answer.unwrap_or_default())
    }

    fn put_answer(&mut self, group: Group, answer: Answer) -> rusqlite::Result<()> {
        let verdict = answer.verdict.map(verdict_code);
        match group {
            Group::Device(index) => self
                .connection
                .prepare_cached(
                    "UPDATE device SET kinds = ?, verdict = ?, decided_by = ?
                     WHERE change = ? AND idx = ?",
                )?
                .execute(params![
                    answer.kinds,
                    verdict,
                    answer.decided_by,
                    self.change,
                    index
                ])?,
            Group::Stray(number) => self
                .connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO stray (change, number, kinds, verdict, decided_by)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    self.change,
                    number,
                    answer.kinds,
                    verdict,
                    answer.decided_by
                ])?,
        };
        Ok(())
    }

    fn owner(&mut self, key: &MatchKey) -> rusqlite::Result<Option<Group>> {
        let owner = self
            .connection
            .prepare_cached("SELECT grp FROM named WHERE change = ? AND key = ?")?
            .query_row(params![self.change, key.to_string()], |row| row.get(0))
            .optional()?;
        Ok(owner.map(group_of))
    }

    fn put_owner(&mut self, key: &MatchKey, group: Group) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT INTO named (change, key, grp) VALUES (?, ?, ?)")?
            .execute(params![self.change, key.to_string(), code(group)])?;
        Ok(())
    }

    fn dissolve(&mut self, stray: i64, into: Group) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE named SET grp = ? WHERE change = ? AND grp = ?")?
            .execute(params![code(into), self.change, code(Group::Stray(stray))])?;
        self.connection
            .prepare_cached("DELETE FROM stray WHERE change = ? AND number = ?")?
            .execute(params![self.change, stray])?;
        Ok(())
    }
}
