//! Runs the commands of one batch in a transaction (see `journal::apply`).

use rusqlite::{Connection, Result};

use crate::journal::{
    apply::{Counts, Keys, WorkingSet},
    sqlite::{
        command::Command,
        tables::{device_cache::DeviceCache, load::load, store::store},
    },
};

/// The state of the journal before a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// The newest position.
    pub(super) last_position: u64,
    pub(super) counts: Counts,
}

/// Collects, loads, applies and stores. The caller commits.
pub(super) fn run(
    db: &Connection,
    commands: &mut [Command],
    cache: &mut DeviceCache,
    start: Start,
) -> Result<WorkingSet> {
    let Start { last_position, mut counts } = start;
    let mut keys = Keys::default();
    for Command { action, .. } in commands.iter_mut() {
        action.modify_tables(db, &mut counts)?;
        action.collect(&mut keys);
    }
    let mut set = load(db, &keys, cache, last_position, counts)?;
    for Command { action, .. } in commands {
        action.apply(&mut set)?;
    }
    store(db, &mut set)?;
    Ok(set)
}

#[cfg(test)]
mod tests;
