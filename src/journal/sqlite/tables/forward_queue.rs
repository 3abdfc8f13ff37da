//! The queue of callbacks to forward. Their bodies are in `callback_body`.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::clock::Timestamp,
    journal::{
        DueForwards, ForwardOutcome, ForwardQueueStats, QueuedForward,
        apply::NewForward,
        sqlite::tables::{
            CachedSql,
            columns::{int, uint},
        },
    },
};

/// Maximum number of rows that one command changes.
pub(crate) const ROWS: usize = 100;

/// Queues results in the transaction that stores them, so that an acknowledged callback is forwarded
/// after any crash. Displaces the oldest if the queue is full.
pub(super) fn insert(
    db: &Connection,
    forwards: &[NewForward],
    stats: &mut ForwardQueueStats,
) -> Result<()> {
    for forward in forwards {
        db.execute_cached(
            "INSERT INTO forward_queue (position, queue_time, due_time, service)
             VALUES (?1, ?2, ?2, ?3)",
            params![int(forward.position), forward.queue_time, forward.service],
        )?;
        stats.waiting += 1;
        let excess = stats.waiting.saturating_sub(forward.max_waiting);
        if excess > 0 {
            let displaced = db.execute_cached(
                "DELETE FROM forward_queue WHERE position IN
                 (SELECT position FROM forward_queue ORDER BY position LIMIT ?)",
                [int(excess.min(ROWS as u64))],
            )?;
            remove(stats, displaced);
            stats.displaced += displaced as u64;
        }
    }
    Ok(())
}

/// Records the outcomes of attempts. Ignores callbacks that were displaced meanwhile.
pub(crate) fn record_outcomes(
    db: &Connection,
    stats: &mut ForwardQueueStats,
    outcomes: &[(u64, ForwardOutcome)],
) -> Result<()> {
    for (id, outcome) in outcomes {
        match outcome {
            ForwardOutcome::Done => {
                let deleted =
                    db.execute_cached("DELETE FROM forward_queue WHERE position = ?", [int(*id)])?;
                remove(stats, deleted);
            }
            ForwardOutcome::RetryAt(due_time) => {
                db.execute_cached(
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
pub(crate) fn reschedule(db: &Connection, now: Timestamp) -> Result<usize> {
    db.execute_cached(
        "UPDATE forward_queue SET due_time = ?1 WHERE position IN
         (SELECT position FROM forward_queue
          WHERE (attempts > 0) = 1 AND due_time > ?1 ORDER BY due_time LIMIT ?2)",
        params![now, int(ROWS)],
    )
}

/// Drops one slice of the callbacks that were queued before a time. Returns their number.
pub(crate) fn expire(
    db: &Connection,
    stats: &mut ForwardQueueStats,
    before: Timestamp,
) -> Result<usize> {
    let deleted = db.execute_cached(
        "DELETE FROM forward_queue WHERE position IN (SELECT position FROM
           (SELECT position, queue_time FROM forward_queue ORDER BY position LIMIT ?)
         WHERE queue_time < ?)",
        params![int(ROWS), before],
    )?;
    remove(stats, deleted);
    Ok(deleted)
}

fn remove(stats: &mut ForwardQueueStats, count: usize) {
    stats.waiting = stats.waiting.saturating_sub(count as u64);
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
        "SELECT f.position, f.service, f.attempts, b.raw_json FROM forward_queue f
         LEFT JOIN callback_body b ON b.position = f.position
         WHERE (f.attempts > 0) = ? AND f.due_time <= ?
         ORDER BY f.due_time, f.position LIMIT ?",
        params![is_tried, now, int(limit)],
        |row| {
            Ok(QueuedForward {
                id: uint(row.get(0)?),
                service: row.get(1)?,
                attempts: row.get(2)?,
                body: decode_body(row.get_ref(3)?.as_blob_or_null()?),
            })
        },
    )
}

/// A body is JSON, so it is valid UTF-8.
fn decode_body(body: Option<&[u8]>) -> Option<String> {
    body.map(|body| String::from_utf8_lossy(body).into_owned())
}

pub(crate) fn count(db: &Connection) -> Result<u64> {
    db.query_row("SELECT count(*) FROM forward_queue", [], |row| row.get(0).map(uint))
}
