//! The queue of callbacks to forward. Their bodies are in `callback_body`.

use crate::{
    domain::clock::Timestamp,
    journal::{
        DueForwards, ForwardOutcome, ForwardQueueStats, QueuedForward,
        apply::NewForward,
        sql::{
            Batch, Database, Result, Statement,
            Type::{Int, Text},
            value::values,
        },
    },
};

/// Maximum number of rows that one command changes.
pub(in crate::journal) const ROWS: usize = 100;

const INSERT: Statement = Statement {
    sql: "INSERT INTO forward_queue (position, queue_time, due_time, service) VALUES (?, ?, ?, ?)",
    params: &[Int, Int, Int, Text],
};

const DELETE: Statement =
    Statement { sql: "DELETE FROM forward_queue WHERE position = ?", params: &[Int] };

const RETRY: Statement = Statement {
    sql: "UPDATE forward_queue SET due_time = ?, attempts = attempts + 1 WHERE position = ?",
    params: &[Int, Int],
};

/// Queues results in the transaction that stores them, so that an acknowledged callback is forwarded
/// after any crash. Displaces the oldest if the queue is full.
pub(super) fn insert(
    db: &dyn Database,
    forwards: &[NewForward],
    stats: &mut ForwardQueueStats,
) -> Result<()> {
    let Some(max_waiting) = forwards.last().map(|forward| forward.max_waiting) else {
        return Ok(());
    };
    let rows = forwards.iter().map(|NewForward { position, service, queue_time, .. }| {
        values![*position, *queue_time, *queue_time, service.as_ref()]
    });
    db.write(&INSERT, &rows.collect::<Batch<'_>>())?;
    stats.waiting += forwards.len() as u64;
    let excess = stats.waiting.saturating_sub(max_waiting);
    if excess > 0 {
        let displaced = db.execute(
            "DELETE FROM forward_queue WHERE position IN
             (SELECT position FROM forward_queue ORDER BY position LIMIT ?)",
            &values![excess.min((ROWS + forwards.len()) as u64)],
        )?;
        remove(stats, displaced);
        stats.displaced += displaced as u64;
    }
    Ok(())
}

/// Records the outcomes of attempts. Ignores callbacks that were displaced meanwhile.
pub(in crate::journal) fn record_outcomes(
    db: &dyn Database,
    stats: &mut ForwardQueueStats,
    outcomes: &[(u64, ForwardOutcome)],
) -> Result<()> {
    let mut done = Batch::default();
    let mut retries = Batch::default();
    for (id, outcome) in outcomes {
        match outcome {
            ForwardOutcome::Done => done.push(values![*id]),
            ForwardOutcome::RetryAt(due_time) => retries.push(values![*due_time, *id]),
        }
    }
    remove(stats, db.execute_all(&DELETE, &done)?);
    db.execute_all(&RETRY, &retries)?;
    Ok(())
}

/// Makes one slice of the callbacks that wait for a retry due now. Returns their number.
pub(in crate::journal) fn reschedule(db: &dyn Database, now: Timestamp) -> Result<usize> {
    db.execute(
        "UPDATE forward_queue SET due_time = ?1 WHERE position IN
         (SELECT position FROM forward_queue
          WHERE (attempts > 0) = ?3 AND due_time > ?1 ORDER BY due_time LIMIT ?2)",
        &values![now, ROWS, true],
    )
}

/// Drops one slice of the callbacks that were queued before a time. Returns their number.
pub(in crate::journal) fn expire(
    db: &dyn Database,
    stats: &mut ForwardQueueStats,
    before: Timestamp,
) -> Result<usize> {
    let deleted = db.execute(
        "DELETE FROM forward_queue WHERE position IN (SELECT position FROM
           (SELECT position, queue_time FROM forward_queue ORDER BY position LIMIT ?) AS oldest
         WHERE queue_time < ?)",
        &values![ROWS, before],
    )?;
    remove(stats, deleted);
    Ok(deleted)
}

fn remove(stats: &mut ForwardQueueStats, count: usize) {
    stats.waiting = stats.waiting.saturating_sub(count as u64);
}

/// Returns due callbacks: up to `first_attempts` that were never tried and up to `retries` that were.
/// If there are fewer of one kind, returns more of the other.
pub(in crate::journal) fn load_due(
    db: &dyn Database,
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
        db.get(sql, &values![is_tried, now], |row| row.get(0))
    };
    let next_due = [next_due(false)?, next_due(true)?].into_iter().flatten().min();
    Ok(DueForwards { due, next_due })
}

/// Returns due callbacks of one kind, in the order of their due time.
fn load_due_attempts(
    db: &dyn Database,
    is_tried: bool,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<QueuedForward>> {
    db.list(
        "SELECT f.position, f.service, f.attempts, b.raw_json FROM forward_queue f
         LEFT JOIN callback_body b ON b.position = f.position
         WHERE (f.attempts > 0) = ? AND f.due_time <= ?
         ORDER BY f.due_time, f.position LIMIT ?",
        &values![is_tried, now, limit],
        |row| {
            Ok(QueuedForward {
                id: row.get(0)?,
                service: row.get(1)?,
                attempts: row.get(2)?,
                body: decode_body(row.get(3)?),
            })
        },
    )
}

/// A body is JSON, so it is valid UTF-8.
fn decode_body(body: Option<&[u8]>) -> Option<String> {
    body.map(|body| String::from_utf8_lossy(body).into_owned())
}

pub(in crate::journal) fn count(db: &dyn Database) -> Result<u64> {
    db.get("SELECT count(*) FROM forward_queue", &[], |row| row.get(0))
}
