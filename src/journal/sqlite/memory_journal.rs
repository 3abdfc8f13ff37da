//! A journal in memory without threads, whose steps can be called one by one.
//!
//! Only for tests of the cost of these steps, and for the program `instructions`, which counts their
//! instructions.

use std::error::Error;

use rusqlite::Connection;

use crate::{
    domain::{
        change::Attempt,
        clock::Timestamp,
        newtypes::{ChangeId, RequestId},
        state::Transition,
    },
    journal::{
        Dispatch, EventPage, EventQuery, Intent, ReceivedCallback, Step, WatchTarget,
        apply::{
            self, ApplyError, ApplyTransition, ClaimChange, Command as _, Counts, Keys,
            StoreCallback, WorkingSet,
        },
        sql::{
            Command, CommandKind, Start,
            tables::{device_cache::DeviceCache, events, load::load},
            writer::run,
        },
        sqlite::{journal::SqliteTransaction, schema},
    },
    operations::ChangeRequest,
};

/// Any error.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A journal in memory.
#[derive(Debug)]
pub struct MemoryJournal {
    db: Connection,
    cache: DeviceCache,
    start: Start,
}

/// A batch of callbacks, and the rows that it may touch.
#[derive(Debug)]
pub struct LoadedBatch {
    callbacks: Vec<ReceivedCallback>,
    set: WorkingSet,
}

impl MemoryJournal {
    /// Creates an empty journal.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn new() -> Result<Self, Failure> {
        let mut db = Connection::open_in_memory()?;
        db.set_prepared_statement_cache_capacity(256);
        schema::initialize(&mut db)?;
        let start = Start { last_position: 0, counts: Counts::default() };
        Ok(Self { db, cache: DeviceCache::default(), start })
    }

    /// Stores a change that ThingSpace has accepted.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn accept(
        &mut self,
        request: &ChangeRequest,
        request_id: RequestId,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let change_id = ChangeId::new(now);
        let intent = Intent {
            change: request.to_change(change_id, now),
            fingerprint: [0; 32],
            devices: request.devices.clone(),
            dispatch: Some(Dispatch { trace: None }),
        };
        let transition = Transition::Accept { request_id, evidence: String::new() };
        self.commit([ClaimChange::new(intent)])?;
        self.commit([ApplyTransition(first_step(change_id, transition, now))])
    }

    /// Stores a batch of callbacks: all steps of a unit of work.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn store(&mut self, callbacks: Vec<ReceivedCallback>) -> Result<(), Failure> {
        self.commit(callbacks.into_iter().map(StoreCallback::new))
    }

    /// Loads the rows that a batch of callbacks may touch.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn load(&mut self, callbacks: Vec<ReceivedCallback>) -> Result<LoadedBatch, Failure> {
        let keys = collect(&callbacks.iter().cloned().map(StoreCallback::new).collect::<Vec<_>>());
        let mut set = load(&self.db, &keys, &mut self.cache)?;
        Start { last_position: set.last_position, counts: set.counts } = self.start;
        Ok(LoadedBatch { callbacks, set })
    }

    /// Returns events of a target.
    ///
    /// # Errors
    ///
    /// Errors of SQLite.
    pub fn events(&self, target: &WatchTarget, query: EventQuery) -> Result<EventPage, Failure> {
        Ok(events::events(&self.db, target, query)?)
    }

    fn commit<C: apply::Command>(
        &mut self,
        commands: impl IntoIterator<Item = C>,
    ) -> Result<(), Failure> {
        let new = |command| Command::new(CommandKind::Other, 1, command).0;
        let mut commands: Vec<Command> = commands.into_iter().map(new).collect();
        let transaction = self.db.transaction()?;
        let work = SqliteTransaction { connection: &transaction, owner: 1, start: self.start };
        let set = run(&work, &mut commands, &mut self.cache)?;
        transaction.commit()?;
        self.cache.keep(&set);
        self.start = Start { last_position: set.last_position, counts: set.counts };
        Ok(())
    }
}

impl LoadedBatch {
    /// Encodes the callbacks, collects their keys, and applies them. Returns the number of new events.
    ///
    /// # Errors
    ///
    /// If the batch is rejected.
    pub fn apply(mut self) -> Result<usize, Failure> {
        let commands: Vec<_> = self.callbacks.into_iter().map(StoreCallback::new).collect();
        let _keys = collect(&commands);
        for command in commands {
            command.apply(&mut self.set).map_err(|error: ApplyError| error.to_string())?;
        }
        Ok(self.set.events.len())
    }
}

/// A transition of the first attempt to send a change.
fn first_step(change_id: ChangeId, transition: Transition, now: Timestamp) -> Step {
    Step { change_id, attempt: Attempt(change_id), transition, now }
}

fn collect(commands: &[StoreCallback]) -> Keys {
    let mut keys = Keys::default();
    commands.iter().for_each(|command| command.collect(&mut keys));
    keys
}

#[cfg(test)]
mod tests;
