//! Runs the commands of one batch in a transaction (see `journal::apply`).

use std::collections::HashSet;

use crate::journal::{
    apply::{Counts, Keys, WorkingSet},
    sql::{
        Database, Result,
        tables::{device_cache::DeviceCache, load::load, store::store},
        writer::command::Command,
    },
};

/// The state of the journal before a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::journal) struct Start {
    /// The newest position.
    pub(in crate::journal) last_position: u64,
    pub(in crate::journal) counts: Counts,
}

/// A transaction that excludes every other writer of the journal.
pub(in crate::journal) trait Transaction {
    /// The connection.
    fn database(&self) -> &dyn Database;

    /// Returns the state of the journal. May wait for the database.
    fn start(&self) -> Result<Start>;

    /// Returns the number of this process.
    fn owner(&self) -> i64;

    /// Returns the numbers of the processes that hold their lease.
    fn live_owners(&self) -> Result<HashSet<i64>>;
}

/// Collects, loads, applies and stores. The caller commits.
pub(in crate::journal) fn run(
    transaction: &dyn Transaction,
    commands: &mut [Command],
    cache: &mut DeviceCache,
) -> Result<WorkingSet> {
    let db = transaction.database();
    let mut start = None;
    let mut keys = Keys::default();
    for Command { action, .. } in commands.iter_mut() {
        if action.has_table_work() {
            let start = match &mut start {
                Some(start) => start,
                none => none.insert(transaction.start()?),
            };
            action.modify_tables(db, &mut start.counts)?;
        }
        action.collect(&mut keys);
    }
    let mut set = load(db, &keys, cache)?;
    // Only now, so that the first step of the load does not wait for it.
    let start = start.map_or_else(|| transaction.start(), Ok)?;
    set.last_position = start.last_position;
    set.counts = start.counts;
    set.owner = transaction.owner();
    if keys.live_owners {
        set.live_owners = transaction.live_owners()?;
    }
    for Command { action, .. } in commands {
        action.apply(&mut set)?;
    }
    store(db, &mut set)?;
    Ok(set)
}

#[cfg(test)]
mod tests;
