//! A batch of commands that are committed together.

use std::collections::{BTreeMap, HashSet, btree_map::Entry};

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{change::Change, clock::Timestamp, device_states::DeviceStates, state::Transition},
    journal::{
        ForwardQueueStats, JournalError, StateCounts, WatchTarget,
        sqlite::tables::{
            CachedSql,
            columns::{Json, uint},
        },
    },
};

/// A batch of commands that are committed together. The changes that they touch are loaded once and
/// stored once.
pub(crate) struct WriteBatch<'c> {
    pub(crate) db: &'c Connection,
    pub(super) changes: BTreeMap<i64, LoadedChange>,
    /// Targets with new events.
    pub(crate) touched: HashSet<WatchTarget>,
    /// The counts after this batch.
    pub(crate) counts: Counts,
    /// The newest position, if the batch has appended an entry.
    pub(crate) position: Option<u64>,
}

/// Counts that are kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) states: StateCounts,
    pub(crate) forward_queue: ForwardQueueStats,
}

/// A change as it is in this batch.
pub(super) struct LoadedChange {
    pub(super) change: Change,
    pub(super) device_states: DeviceStates,
    is_dirty: bool,
}

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Fails the whole batch.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// Fails only the command, which has written nothing.
    #[error(transparent)]
    Rejected(#[from] JournalError),
}

impl<'c> WriteBatch<'c> {
    pub(crate) fn new(db: &'c Connection, counts: Counts) -> Self {
        Self { db, changes: BTreeMap::new(), touched: HashSet::new(), counts, position: None }
    }

    /// Stores the loaded changes. Call it before the commit.
    pub(crate) fn store_changes(&self) -> Result<()> {
        for (id, loaded) in self.changes.iter().filter(|(_, loaded)| loaded.is_dirty) {
            let change = &loaded.change;
            self.db.execute_cached(
                "UPDATE change SET state = ?, accept_time = ?, update_time = ?, snapshot = ?,
                   device_states = ?
                 WHERE id = ?",
                params![
                    change.state,
                    change.accept_time,
                    change.update_time,
                    Json(change),
                    Json(&loaded.device_states),
                    id
                ],
            )?;
        }
        Ok(())
    }

    /// Appends an entry for a change or a state transition. Returns its position.
    pub(super) fn append(&mut self, now: Timestamp) -> Result<i64> {
        let position = self.db.insert_cached("INSERT INTO log_entry (time) VALUES (?)", [now])?;
        self.position = Some(uint(position));
        Ok(position)
    }

    /// Applies a transition, or returns an error and changes nothing.
    pub(super) fn advance(
        &mut self,
        id: i64,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), CommandError> {
        let loaded = self.load(id)?;
        let before = loaded.change.state;
        loaded.change.apply(transition, now).map_err(JournalError::from)?;
        loaded.is_dirty = true;
        let after = loaded.change.state;
        self.counts.states.add(before, -1);
        self.counts.states.add(after, 1);
        Ok(())
    }

    /// Adds the state of a change to its timeline.
    pub(super) fn append_state_event(
        &mut self,
        id: i64,
        position: i64,
        event_index: i64,
    ) -> Result<()> {
        self.db.execute_cached(
            "INSERT INTO timeline (change, position, event_index, snapshot) VALUES (?, ?, ?, ?)",
            params![id, position, event_index, Json(&self.load(id)?.change)],
        )?;
        self.mark_touched(id);
        Ok(())
    }

    /// Marks a loaded change and its requests as touched.
    pub(super) fn mark_touched(&mut self, id: i64) {
        if let Some(loaded) = self.changes.get(&id) {
            let requests = loaded.change.request_ids.iter().cloned();
            self.touched.extend(requests.map(WatchTarget::Request));
            self.touched.insert(WatchTarget::Change(loaded.change.change_id));
        }
    }

    /// Loads a change, unless this batch has it already.
    pub(super) fn load(&mut self, id: i64) -> Result<&mut LoadedChange> {
        match self.changes.entry(id) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            Entry::Vacant(vacant) => {
                let (Json(change), Json(device_states)) = self.db.get(
                    "SELECT snapshot, device_states FROM change WHERE id = ?",
                    [id],
                    |row| Ok((row.get::<_, Json<Change>>(0)?, row.get(1)?)),
                )?;
                Ok(vacant.insert(LoadedChange { change, device_states, is_dirty: false }))
            }
        }
    }
}

impl LoadedChange {
    /// Updates the counts after `device_states` has changed.
    pub(super) fn update_counts(&mut self, now: Timestamp) {
        self.change.counts = self.device_states.counts(self.change.device_count);
        self.change.touch(now);
        self.is_dirty = true;
    }
}
