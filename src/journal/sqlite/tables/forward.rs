//! Callbacks that are to be passed on: the queue has only what finds them, their bodies are the
//! entries' own.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    apply::WriteBatch,
    entry::{int, uint},
};
use crate::{
    domain::{clock::Timestamp, newtypes::CallbackService},
    journal::{DueForwards, ForwardOptions, ForwardOutcome, QueuedForward},
};

/// Forwards that are given up, or made due, at a time.
const SLICE: u64 = 100;

impl WriteBatch<'_> {
    /// Queues a result that was just stored, in its own transaction: what was acknowledged is passed
    /// on after any crash. Displaces the oldest where too many wait.
    pub(crate) fn queue_forward(
        &mut self,
        entry: i64,
        service: Option<&CallbackService>,
        forwarding: ForwardOptions,
    ) -> rusqlite::Result<()> {
        let now = forwarding.now.as_micros();
        self.connection
            .prepare_cached("INSERT INTO forward (entry, at, due, service) VALUES (?, ?, ?, ?)")?
            .execute(params![
                entry,
                now,
                now,
                service.map(CallbackService::as_str)
            ])?;
        self.forward_queue.waiting += 1;
        let too_many = self
            .forward_queue
            .waiting
            .saturating_sub(forwarding.max_queued);
        if too_many > 0 {
            let displaced = self
                .connection
                .prepare_cached(
                    "DELETE FROM forward WHERE entry IN
                     (SELECT entry FROM forward ORDER BY entry LIMIT ?)",
                )?
                .execute([int(too_many.min(SLICE))])?;
            self.forward_queue.waiting =
                self.forward_queue.waiting.saturating_sub(displaced as u64);
            self.forward_queue.displaced += displaced as u64;
        }
        Ok(())
    }

    /// Takes what became of tries.
    pub(in crate::journal) fn record_forward_outcomes(
        &mut self,
        settled: &[(u64, ForwardOutcome)],
    ) -> rusqlite::Result<()> {
        for (id, tried) in settled {
            match tried {
                ForwardOutcome::Done => {
                    let gone = self
                        .connection
                        .prepare_cached("DELETE FROM forward WHERE entry = ?")?
                        .execute([int(*id)])?;
                    // One that was displaced meanwhile is gone already.
                    self.forward_queue.waiting =
                        self.forward_queue.waiting.saturating_sub(gone as u64);
                }
                ForwardOutcome::RetryAt(due) => {
                    self.connection
                        .prepare_cached(
                            "UPDATE forward SET due = ?, tries = tries + 1 WHERE entry = ?",
                        )?
                        .execute([due.as_micros(), int(*id)])?;
                }
            }
        }
        Ok(())
    }

    /// Makes those due that are tried again later, a slice at once; answers how many.
    pub(in crate::journal) fn reschedule_forwards(
        &mut self,
        now: Timestamp,
    ) -> rusqlite::Result<usize> {
        self.connection
            .prepare_cached(
                "UPDATE forward SET due = ?1 WHERE entry IN (SELECT entry FROM forward
                 WHERE (tries > 0) = 1 AND due > ?1 ORDER BY due LIMIT ?2)",
            )?
            .execute(params![now.as_micros(), int(SLICE)])
    }

    /// Gives up those that were queued before a time, a slice at once; answers how many.
    pub(in crate::journal) fn expire_forwards(
        &mut self,
        before: Timestamp,
    ) -> rusqlite::Result<usize> {
        let gone = self
            .connection
            .prepare_cached(
                "DELETE FROM forward WHERE entry IN (SELECT entry FROM
                   (SELECT entry, at FROM forward ORDER BY entry LIMIT ?) WHERE at < ?)",
            )?
            .execute([int(SLICE), before.as_micros()])?;
        self.forward_queue.waiting = self.forward_queue.waiting.saturating_sub(gone as u64);
        Ok(gone)
    }
}

/// Those that are due: so many that were never tried, and so many that were. Where there are fewer of
/// the one, there are more of the other.
pub(in crate::journal) fn load_due(
    connection: &Connection,
    now: Timestamp,
    first_attempts: usize,
    retries: usize,
) -> rusqlite::Result<DueForwards> {
    let all = first_attempts + retries;
    let mut tried = load_due_attempts(connection, true, now, retries)?;
    let mut due = load_due_attempts(connection, false, now, all - tried.len())?;
    if tried.len() == retries && due.len() < first_attempts {
        tried = load_due_attempts(connection, true, now, all - due.len())?;
    }
    due.append(&mut tried);
    let next = [false, true].into_iter().map(|tried| {
        connection
            .prepare_cached(
                "SELECT due FROM forward WHERE (tries > 0) = ? AND due > ? ORDER BY due LIMIT 1",
            )?
            .query_row(params![tried, now.as_micros()], |row| row.get(0))
            .optional()
    });
    let next: Vec<Option<i64>> = next.collect::<rusqlite::Result<_>>()?;
    let next = next.into_iter().flatten().min();
    Ok(DueForwards {
        due,
        next_due: next.map(Timestamp::from_micros),
    })
}

/// Those that are due and were tried, or were not; due for longest first.
fn load_due_attempts(
    connection: &Connection,
    tried: bool,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<QueuedForward>> {
    connection
        .prepare_cached(
            "SELECT f.entry, f.service, f.tries, e.raw FROM forward f
             LEFT JOIN entry e ON e.position = f.entry
             WHERE (f.tries > 0) = ? AND f.due <= ? ORDER BY f.due, f.entry LIMIT ?",
        )?
        .query_map(params![tried, now.as_micros(), int(limit as u64)], |row| {
            let service: Option<String> = row.get(1)?;
            Ok(QueuedForward {
                id: uint(row.get(0)?),
                service: service.and_then(|name| CallbackService::parse(name).ok()),
                tries: uint(row.get(2)?),
                body: row.get(3)?,
            })
        })?
        .collect()
}

/// How many wait.
pub(in crate::journal) fn count_queued(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM forward", [], |row| {
        Ok(uint(row.get(0)?))
    })
}
