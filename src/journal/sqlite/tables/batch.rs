//! A batch of commands that are committed together.

use std::collections::{BTreeMap, HashSet, btree_map::Entry};

use rusqlite::{Connection, params};

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        device_states::DeviceStates,
        state::{ChangeState, IllegalTransition, Transition},
    },
    journal::{
        ForwardQueueStats, JournalError, StateCounts, WatchTarget,
        sqlite::tables::{
            columns::{Json, StoredResult, uint},
            sql,
        },
    },
};

/// A batch of commands that are committed together. The changes that they touch are loaded once and
/// stored once.
pub(crate) struct WriteBatch<'c> {
    pub(crate) connection: &'c Connection,
    pub(super) changes: BTreeMap<i64, LoadedChange>,
    pub(super) touched: HashSet<WatchTarget>,
    /// Changes that entered a state, less those that left it.
    pub(super) state_count_delta: StateCounts,
    /// The forward queue, including this batch.
    pub(super) forward_queue: ForwardQueueStats,
    /// The newest position that it has appended.
    position: Option<i64>,
}

/// The effects of a batch that are published after the commit.
pub(crate) struct BatchSummary {
    pub(crate) touched: Vec<WatchTarget>,
    pub(crate) state_count_delta: StateCounts,
    pub(crate) forward_queue: ForwardQueueStats,
    /// The newest position, if the batch appended an entry.
    pub(crate) position: Option<u64>,
}

/// A change as it is in this batch.
pub(super) struct LoadedChange {
    pub(super) change: Change,
    pub(super) device_states: DeviceStates,
    /// The state in which it was loaded.
    stored_state: ChangeState,
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

impl From<IllegalTransition> for CommandError {
    fn from(error: IllegalTransition) -> Self {
        Self::Rejected(error.into())
    }
}

impl<'c> WriteBatch<'c> {
    pub(crate) fn new(connection: &'c Connection, forward_queue: ForwardQueueStats) -> Self {
        Self {
            connection,
            changes: BTreeMap::new(),
            touched: HashSet::new(),
            state_count_delta: StateCounts::default(),
            forward_queue,
            position: None,
        }
    }

    /// Stores the loaded changes. Call it before the commit.
    pub(crate) fn finish(mut self) -> rusqlite::Result<BatchSummary> {
        for (id, loaded) in self.changes.iter().filter(|(_, loaded)| loaded.is_dirty) {
            let change = &loaded.change;
            self.state_count_delta.add(loaded.stored_state, -1);
            self.state_count_delta.add(change.state, 1);
            sql::execute(
                self.connection,
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
        Ok(BatchSummary {
            touched: self.touched.into_iter().collect(),
            state_count_delta: self.state_count_delta,
            forward_queue: self.forward_queue,
            position: self.position.map(uint),
        })
    }

    /// Appends an entry for a change or a state transition. Returns its position.
    pub(super) fn append(&mut self, now: Timestamp) -> rusqlite::Result<i64> {
        let position =
            sql::insert(self.connection, "INSERT INTO log_entry (time) VALUES (?)", [now])?;
        self.position = Some(position);
        Ok(position)
    }

    /// Appends the entry of a result. Returns its position.
    pub(super) fn append_result(
        &mut self,
        result: &StoredResult,
        raw_json: &str,
        request: i64,
        now: Timestamp,
    ) -> rusqlite::Result<i64> {
        let position = sql::insert(
            self.connection,
            "INSERT INTO log_entry (time, result_json, raw_json, request) VALUES (?, ?, ?, ?)",
            params![now, Json(result), raw_json, request],
        )?;
        self.position = Some(position);
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
        loaded.change.apply(transition, now)?;
        loaded.is_dirty = true;
        Ok(())
    }

    /// Adds the state of a change to its timeline.
    pub(super) fn append_state_event(
        &mut self,
        id: i64,
        position: i64,
        event_index: i64,
    ) -> rusqlite::Result<()> {
        sql::execute(
            self.connection,
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
    pub(super) fn load(&mut self, id: i64) -> rusqlite::Result<&mut LoadedChange> {
        match self.changes.entry(id) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            Entry::Vacant(vacant) => {
                let (Json(change), Json(device_states)) = sql::get(
                    self.connection,
                    "SELECT snapshot, device_states FROM change WHERE id = ?",
                    [id],
                    |row| Ok((row.get::<_, Json<Change>>(0)?, row.get(1)?)),
                )?;
                let stored_state = change.state;
                Ok(vacant.insert(LoadedChange {
                    change,
                    device_states,
                    stored_state,
                    is_dirty: false,
                }))
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
