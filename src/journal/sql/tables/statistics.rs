//! Figures about the content. All reads use the partial indexes and are bounded.

use std::ops::ControlFlow;

use crate::{
    domain::{
        clock::Timestamp, device_states::DeviceCounts, evidence::ResultService, state::ChangeState,
    },
    journal::{
        QuarantineStatistics, Statistics,
        sql::{
            Database, Result,
            tables::{columns::IS_OPEN, stored_change::decode},
            value::values,
        },
    },
    operations,
};

/// Reads everything but the size of the quarantine and the replicas.
pub(in crate::journal::sql) fn read(db: &dyn Database) -> Result<Statistics> {
    let oldest_unknown = oldest_unknown(db)?;
    Ok(Statistics {
        oldest_pending: oldest_pending(db)?,
        oldest_without_result: oldest_without_result(db)?,
        oldest_unknown,
        waiting_requests: oldest_unknown
            .map_or(Ok(0), |since| count_waiting_requests(db, since))?,
        quarantine: count_quarantined(db)?,
        replicas: None,
    })
}

fn oldest_pending(db: &dyn Database) -> Result<Option<Timestamp>> {
    let mut oldest = None;
    for state in [ChangeState::Accepted, ChangeState::Overdue] {
        let sql = format!("SELECT min(accept_time) FROM change WHERE {IS_OPEN} AND state = ?");
        let first: Option<Timestamp> = db.get(&sql, &values![state], |row| row.get(0))?;
        oldest = [oldest, first].into_iter().flatten().min();
    }
    Ok(oldest)
}

/// Examines the oldest ACCEPTED changes until it has found one for each callback service.
fn oldest_without_result(db: &dyn Database) -> Result<Vec<(ResultService, Timestamp)>> {
    let sql = format!(
        "SELECT record, status, accept_time FROM change WHERE {IS_OPEN} AND state = ?
         ORDER BY accept_time LIMIT ?"
    );
    let mut found: Vec<(ResultService, Timestamp)> = Vec::new();
    let params = values![ChangeState::Accepted, Statistics::MAX_EXAMINED];
    db.query(&sql, &params, &mut |row| {
        let change = decode(row, 0)?;
        let service = operations::evidence(change.change_type).callback_service;
        let is_first = found.iter().all(|(known, _)| *known != service);
        if change.counts == DeviceCounts::default() && is_first {
            found.push((service, row.get(2)?));
        }
        let is_complete = found.len() == ResultService::ALL.len();
        Ok(if is_complete { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The index does not have the time. Few changes have an unknown outcome.
fn oldest_unknown(db: &dyn Database) -> Result<Option<Timestamp>> {
    let sql = format!(
        "SELECT min(update_time) FROM
           (SELECT update_time FROM change WHERE {IS_OPEN} AND state = ? LIMIT ?) AS oldest"
    );
    let params = values![ChangeState::OutcomeUnknown, Statistics::MAX_EXAMINED];
    db.get(&sql, &params, |row| row.get(0))
}

/// The order makes PostgreSQL read the index, not the table, although it does not know how many rows match.
fn count_waiting_requests(db: &dyn Database, since: Timestamp) -> Result<u64> {
    let sql = "SELECT count(*) FROM
         (SELECT 1 FROM request WHERE change IS NULL AND request_id IS NOT NULL
            AND last_result_time >= ? ORDER BY last_result_time DESC LIMIT ?) AS newest";
    db.get(sql, &values![since, Statistics::MAX_COUNTED], |row| row.get(0))
}

/// Counts in the partial indexes, without the bodies. The size of the quarantine bounds the number.
fn count_quarantined(db: &dyn Database) -> Result<QuarantineStatistics> {
    let count = |reviewed: u8| {
        let sql = format!("SELECT count(*) FROM quarantine WHERE reviewed = {reviewed}");
        db.get(&sql, &[], |row| row.get(0))
    };
    Ok(QuarantineStatistics { reviewed: count(1)?, unreviewed: count(0)?, bytes: 0 })
}
