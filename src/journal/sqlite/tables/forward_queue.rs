//! The queue of callbacks to forward. Their bodies are in the log.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{clock::Timestamp, newtypes::CallbackService},
    journal::{
        DueForwards, ForwardOptions, ForwardOutcome, QueuedForward,
        sqlite::tables::{
            CachedSql,
            batch::WriteBatch,
            columns::{int, uint},
        },
    },
};

/// Maximum number of rows that one command changes.
pub(crate) const ROWS: usize = 100;

/// Queues a result in the transaction that stores it, so that an acknowledged callback is forwarded
/// after any crash. Displaces the oldest if the queue is full.
pub(super) fn queue_forward(
    batch: &mut WriteBatch<'_>,
    position: i64,
    service: Option<&CallbackService>,
    options: ForwardOptions,
) -> Result<()> {
    batch.db.execute_cached(
        "INSERT INTO forward_queue (position, queue_time, due_time, service)
         VALUES (?1, ?2, ?2, ?3)",
        params![position, options.now, service],
    )?;
    batch.counts.forward_queue.waiting += 1;
    let excess = batch.counts.forward_queue.waiting.saturating_sub(options.max_waiting);
    if excess > 0 {
        let displaced = batch.db.execute_cached(
            "DELETE FROM forward_queue WHERE position IN
             (SELECT position FROM forward_queue ORDER BY position LIMIT ?)",
            [int(excess.min(ROWS as u64))],
        )?;
        remove(batch, displaced);
        batch.counts.forward_queue.displaced += displaced as u64;
    }
    Ok(())
}

/// Records the outcomes of attempts. Ignores callbacks that were displaced meanwhile.
pub(crate) fn record_outcomes(
    batch: &mut WriteBatch<'_>,
    outcomes: &[(u64, ForwardOutcome)],
) -> Result<()> {
    for (id, outcome) in outcomes {
        match outcome {
            ForwardOutcome::Done => {
                let deleted = batch
                    .db
                    .execute_cached("DELETE FROM forward_queue WHERE position = ?", [int(*id)])?;
                remove(batch, deleted);
            }
            ForwardOutcome::RetryAt(due_time) => {
                batch.db.execute_cached(
                    "UPDATE forward_queue SET due_time = ?, attempts = attempts + 1
                     WHERE position = ?",
                    params![due_time, int(*id)],
                )?;
            }
        }
    }
    Ok(())
}

/// Makes one slice of the callbacks that wait for a retry due now. Returns their number.
pub(crate) fn reschedule(batch: &mut WriteBatch<'_>, now: Timestamp) -> Result<usize> {
    batch.db.execute_cached(
        "UPDATE forward_queue SET due_time = ?1 WHERE position IN
         (SELECT position FROM forward_queue
          WHERE (attempts > 0) = 1 AND due_time > ?1 ORDER BY due_time LIMIT ?2)",
        params![now, int(ROWS)],
    )
}

/// Drops one slice of the callbacks that were queued before a time. Returns their number.
pub(crate) fn expire(batch: &mut WriteBatch<'_>, before: Timestamp) -> Result<usize> {
    let deleted = batch.db.execute_cached(
        "DELETE FROM forward_queue WHERE position IN (SELECT position FROM
           (SELECT position, queue_time FROM forward_queue ORDER BY position LIMIT ?)
         WHERE queue_time < ?)",
        params![int(ROWS), before],
    )?;
    remove(batch, deleted);
    Ok(deleted)
}

fn remove(batch: &mut WriteBatch<'_>, count: usize) {
    let waiting = &mut batch.counts.forward_queue.waiting;
    *waiting = waiting.saturating_sub(count as u64);
}

/// Returns due callbacks: up to `first_attempts` that were never tried and up to `retries` that were.
/// If there are fewer of one kind, returns more of the other.
pub(crate) fn load_due(
    db: &Connection,
    now: Timestamp,
    first_attempts: usize,
    retries: usize,
) -> Result<DueForwards> {
    let all = first_attempts + retries;
    let mut tried = load_due_attempts(db, true, now, retries)?;
    let mut due = load_due_attempts(db, false, now, all - tried.len())?;
    if tried.len() == retries && due.len() < first_attempts {
        tried = load_due_attempts(db, true, now, all - due.len())?;
    }
    due.append(&mut tried);
    let next_due = |is_tried: bool| -> Result<Option<Timestamp>> {
        let sql =
            "SELECT min(due_time) FROM forward_queue WHERE (attempts > 0) = ? AND due_time > ?";
        db.get(sql, params![is_tried, now], |row| row.get(0))
    };
    let next_due = [next_due(false)?, next_due(true)?].into_iter().flatten().min();
    Ok(DueForwards { due, next_due })
}

/// Returns due callbacks of one kind, in the order of their due time.
fn load_due_attempts(
    db: &Connection,
    is_tried: bool,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<QueuedForward>> {
    db.list(
        "SELECT f.position, f.service, f.attempts, e.raw_json FROM forward_queue f
         LEFT JOIN log_entry e ON e.position = f.position
         WHERE (f.attempts > 0) = ? AND f.due_time <= ?
         ORDER BY f.due_time, f.position LIMIT ?",
        params![is_tried, now, int(limit)],
        |row| {
            Ok(QueuedForward {
                id: uint(row.get(0)?),
                service: row.get(1)?,
                attempts: row.get(2)?,
                body: row.get(3)?,
            })
        },
    )
}

pub(crate) fn count(db: &Connection) -> Result<u64> {
    db.query_row("SELECT count(*) FROM forward_queue", [], |row| row.get(0).map(uint))
}
