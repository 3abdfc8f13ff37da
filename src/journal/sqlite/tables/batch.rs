//! A batch of commands that are committed together.

use std::collections::{BTreeMap, HashSet, btree_map::Entry};

use rusqlite::{Connection, params};

use crate::journal::sqlite::tables::{
    codes::state_code,
    encoding::{StoredResult, from_json, json, uint},
    sql,
};
use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        device_states::DeviceStates,
        state::{ChangeState, Transition},
    },
    journal::{
        error::JournalError, events::WatchTarget, forward_queue::ForwardQueueStats,
        state_counts::StateCounts,
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
    pub(super) is_dirty: bool,
}

/// The result of a command. An error of SQLite fails the whole batch, any other only the command.
pub(crate) type ApplyResult<T> = rusqlite::Result<Result<T, JournalError>>;

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
        for (id, loaded) in &self.changes {
            if !loaded.is_dirty {
                continue;
            }
            let change = &loaded.change;
            self.state_count_delta.add(loaded.stored_state, -1);
            self.state_count_delta.add(change.state, 1);
            sql::execute(
                self.connection,
                "UPDATE change SET state = ?, accept_time = ?, update_time = ?, snapshot = ?,
                   device_states = ?
                 WHERE id = ?",
                params![
                    state_code(change.state),
                    change.accept_time.map(Timestamp::as_micros),
                    change.update_time.as_micros(),
                    json(change)?,
                    json(&loaded.device_states)?,
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
        let position = sql::insert(
            self.connection,
            "INSERT INTO log_entry (time) VALUES (?)",
            [now.as_micros()],
        )?;
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
            params![now.as_micros(), json(result)?, raw_json, request],
        )?;
        self.position = Some(position);
        Ok(position)
    }

    pub(super) fn advance(
        &mut self,
        id: i64,
        transition: &Transition,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let loaded = self.load(id)?;
        loaded.is_dirty = true;
        loaded
            .change
            .apply(transition, now)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Adds the state of a change to its timeline.
    pub(super) fn append_state_event(
        &mut self,
        id: i64,
        position: i64,
        event_index: i64,
    ) -> rusqlite::Result<()> {
        let snapshot = json(&self.load(id)?.change)?;
        sql::execute(
            self.connection,
            "INSERT INTO timeline (change, position, event_index, snapshot) VALUES (?, ?, ?, ?)",
            params![id, position, event_index, snapshot],
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
                let (snapshot, device_states): (String, String) = self
                    .connection
                    .prepare_cached("SELECT snapshot, device_states FROM change WHERE id = ?")?
                    .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let change: Change = from_json(&snapshot)?;
                Ok(vacant.insert(LoadedChange {
                    stored_state: change.state,
                    change,
                    device_states: from_json(&device_states)?,
                    is_dirty: false,
                }))
            }
        }
    }
}
