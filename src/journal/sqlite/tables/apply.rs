//! What an entry does to the tables.
//!
//! A pure function of the tables and the entry, so that every replica that
//! applies the same entries has the same tables. All that happens in one
//! transaction, the engine's: nothing here commits.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::entry::{Entry, from_json, json, state_code, uint};
use crate::{
    broken::Rule,
    domain::{
        change::{Change, ChangeState, Transition},
        clock::Timestamp,
        device_states::DeviceStates,
        newtypes::{AccountName, CallbackService, ChangeId, RequestId},
    },
    journal::{
        Arrival, Census, Claim, ClaimCheck, ForwardCensus, Intent, JournalError, Stored, Target,
    },
};

/// Several commands that are committed together. What is known of the changes
/// that they touch is loaded once and written back once.
pub(in crate::journal) struct Batch<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) changes: BTreeMap<i64, Loaded>,
    pub(crate) touched: HashSet<Target>,
    /// Changes that came to a state, less those that left it.
    pub(crate) census: Census,
    /// What waits to be passed on, this batch included.
    pub(crate) forwards: ForwardCensus,
    /// The newest position that it has appended.
    position: Option<i64>,
}

/// What a batch has done, for those who are told after the commit.
pub(in crate::journal) struct Done {
    pub(in crate::journal) touched: Vec<Target>,
    pub(in crate::journal) census: Census,
    pub(in crate::journal) forwards: ForwardCensus,
    /// The newest position, where there is a new one.
    pub(in crate::journal) position: Option<u64>,
}

/// A change as it is in this batch.
pub(crate) struct Loaded {
    pub(crate) change: Change,
    pub(crate) tally: DeviceStates,
    /// The state that the census has it in.
    counted: ChangeState,
    pub(crate) changed: bool,
}

/// What a command comes to: the tables' own trouble apart, which undoes the
/// whole batch.
pub(in crate::journal) type Applied<T> = rusqlite::Result<Result<T, JournalError>>;

/// A request's own row, and that of the change that owns it.
pub(crate) struct RequestRow {
    pub(crate) id: i64,
    pub(crate) change: Option<i64>,
}

// === impl Batch ===

impl<'c> Batch<'c> {
    pub(in crate::journal) fn new(connection: &'c Connection, forwards: ForwardCensus) -> Self {
        Self {
            connection,
            changes: BTreeMap::new(),
            touched: HashSet::new(),
            census: Census::default(),
            forwards,
            position: None,
        }
    }

    /// Writes back what was loaded. To be called before the commit.
    pub(in crate::journal) fn finish(mut self) -> rusqlite::Result<Done> {
        for (id, loaded) in std::mem::take(&mut self.changes) {
            if !loaded.changed {
                continue;
            }
            let change = &loaded.change;
            self.census.add(loaded.counted, -1);
            self.census.add(change.state, 1);
            self.connection
                .prepare_cached(
                    "UPDATE change SET state = ?, accept_time = ?, last_time = ?, snapshot = ?, tally = ?
                     WHERE id = ?",
                )?
                .execute(params![
                    state_code(change.state),
                    change.accept_time.map(Timestamp::as_micros),
                    change.update_time.as_micros(),
                    json(change)?,
                    json(&loaded.tally)?,
                    id
                ])?;
        }
        Ok(Done {
            touched: self.touched.into_iter().collect(),
            census: self.census,
            forwards: self.forwards,
            position: self.position.map(uint),
        })
    }

    // --- Commands --------------------------------------------------------

    /// Checks what a claim would find. Changes nothing.
    pub(in crate::journal) fn check(&mut self, intent: &Intent) -> rusqlite::Result<ClaimCheck> {
        let change = &intent.change;
        let known = self.by_key(change)?;
        if let Some((known, content)) = known {
            let same_content = content == intent.content;
            if !same_content || known.state != ChangeState::NotSent {
                return Ok(ClaimCheck::Known {
                    change: known,
                    same_content,
                });
            }
            return Ok(match self.busy(&intent.devices, change)? {
                Some(busy) => ClaimCheck::Busy(busy),
                None => ClaimCheck::Rearm(known),
            });
        }
        Ok(match self.busy(&intent.devices, change)? {
            Some(busy) => ClaimCheck::Busy(busy),
            None => ClaimCheck::Free,
        })
    }

    /// The change that has this change's key, and the fingerprint of its content.
    fn by_key(&mut self, change: &Change) -> rusqlite::Result<Option<(Change, Vec<u8>)>> {
        let Some(key) = &change.key else {
            return Ok(None);
        };
        let known: Option<(i64, Vec<u8>)> = self
            .connection
            .prepare_cached("SELECT id, content FROM change WHERE account = ? AND key = ?")?
            .query_row([change.account.as_str(), key.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match known {
            Some((id, content)) => Ok(Some((self.load(id)?.change.clone(), content))),
            None => Ok(None),
        }
    }

    pub(in crate::journal) fn claim(&mut self, intent: &Intent) -> Applied<Claim> {
        match self.check(intent)? {
            ClaimCheck::Free => {}
            ClaimCheck::Rearm(change) => {
                return self.rearm(change.change_id, intent.change.create_time);
            }
            ClaimCheck::Known { .. } if Rule::KeyCheck.is_broken() => {
                let mut again = intent.clone();
                again.change.key = None;
                return self.claim(&again);
            }
            ClaimCheck::Known {
                change,
                same_content,
            } => {
                return Ok(Ok(Claim::Known {
                    change,
                    same_content,
                }));
            }
            ClaimCheck::Busy(busy) => return Ok(Ok(Claim::Busy(busy))),
        }
        let change = &intent.change;
        let entry = Entry::Queued {
            change: Box::new(change.clone()),
            content: hex(&intent.content),
            devices: intent.devices.clone(),
        };
        let position = self.append(&entry, change.create_time, None, None)?;
        self.insert_change(position, intent)?;
        self.push_state(position, position, 0)?;
        Ok(Ok(Claim::Made(change.clone())))
    }

    /// Queues a NOT_SENT change again, under its first ID.
    fn rearm(&mut self, change_id: ChangeId, now: Timestamp) -> Applied<Claim> {
        let change = match self.step(change_id, &Transition::Rearm, now)? {
            Ok(change) => change,
            Err(error) => return Ok(Err(error)),
        };
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        let devices = self.stored_devices(id)?;
        Ok(Ok(Claim::Rearmed { change, devices }))
    }

    pub(in crate::journal) fn step(
        &mut self,
        change_id: ChangeId,
        step: &Transition,
        now: Timestamp,
    ) -> Applied<Change> {
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        if let Err(illegal) = self.load(id)?.change.state.after(step) {
            return Ok(Err(illegal.into()));
        }
        let entry = Entry::Step {
            change_id,
            step: step.clone(),
        };
        let position = self.append(&entry, now, None, None)?;
        self.take(id, step, now)?;
        self.push_state(id, position, 0)?;
        if let Transition::Dispatch {
            already_on_plan: Some(on_plan),
            ..
        } = step
        {
            self.note_plans(id, on_plan)?;
        }
        if let Transition::Accept {
            request_id,
            evidence,
        } = step
        {
            self.bind(id, position, request_id, evidence, now)?;
        }
        Ok(Ok(self.load(id)?.change.clone()))
    }

    pub(in crate::journal) fn store_callback(&mut self, arrival: &Arrival) -> Applied<Stored> {
        let (callback, now) = (&arrival.callback, arrival.time);
        let report = &callback.result;
        let request = self.request_row(&report.request_id, now)?;
        let inserted = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO seen (request, digest) VALUES (?, ?)")?
            .execute(params![request.id, callback.digest.as_slice()])?;
        if inserted == 0 && !Rule::Deduplication.is_broken() {
            return Ok(Ok(Stored::Duplicate));
        }
        let entry = Entry::Result {
            report: Box::new(report.clone()),
            digest: hex(&callback.digest),
            service: arrival.service.clone(),
        };
        let raw = Some(callback.raw_json.as_str());
        let position = self.append(&entry, now, raw, Some(request.id))?;
        let account = arrival.account.as_ref().map(AccountName::as_str);
        let service = arrival.service.as_ref().map(CallbackService::as_str);
        self.connection
            .prepare_cached(
                "UPDATE request SET last_time = ?, account = coalesce(account, ?),
                   service = coalesce(service, ?) WHERE id = ?",
            )?
            .execute(params![now.as_micros(), account, service, request.id])?;
        self.touched
            .insert(Target::Request(report.request_id.clone()));
        if let Some(forwarding) = arrival.forwarding {
            self.queue_forward(position, arrival.service.as_ref(), forwarding)?;
        }
        if let Some(change) = request.change {
            self.push_result(change, position, 0, position, report, now)?;
            self.complete(change, position, 1, now)?;
        }
        Ok(Ok(Stored::New(uint(position))))
    }

    // --- Their parts -----------------------------------------------------

    pub(crate) fn append(
        &mut self,
        entry: &Entry,
        at: Timestamp,
        raw: Option<&str>,
        request: Option<i64>,
    ) -> rusqlite::Result<i64> {
        let position = self
            .connection
            .prepare_cached("INSERT INTO entry (at, body, raw, request) VALUES (?, ?, ?, ?)")?
            .insert(params![at.as_micros(), json(entry)?, raw, request])?;
        self.position = Some(position);
        Ok(position)
    }

    pub(crate) fn take(
        &mut self,
        id: i64,
        step: &Transition,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let loaded = self.load(id)?;
        loaded.changed = true;
        loaded
            .change
            .apply(step, now)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Puts a change's state into its timeline.
    pub(crate) fn push_state(
        &mut self,
        id: i64,
        position: i64,
        index: i64,
    ) -> rusqlite::Result<()> {
        let snapshot = json(&self.load(id)?.change)?;
        self.connection
            .prepare_cached(
                "INSERT INTO timeline (change, position, idx, snapshot) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![id, position, index, snapshot])?;
        self.touch(id);
        Ok(())
    }

    pub(crate) fn touch(&mut self, id: i64) {
        if let Some(loaded) = self.changes.get(&id) {
            let requests = loaded
                .change
                .request_ids
                .iter()
                .cloned()
                .map(Target::Request);
            self.touched.extend(requests);
            self.touched.insert(Target::Change(loaded.change.change_id));
        }
    }

    pub(crate) fn load(&mut self, id: i64) -> rusqlite::Result<&mut Loaded> {
        use std::collections::btree_map::Entry as Slot;
        match self.changes.entry(id) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => {
                let (snapshot, tally): (String, String) = self
                    .connection
                    .prepare_cached("SELECT snapshot, tally FROM change WHERE id = ?")?
                    .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let change: Change = from_json(&snapshot)?;
                Ok(slot.insert(Loaded {
                    counted: change.state,
                    change,
                    tally: from_json(&tally)?,
                    changed: false,
                }))
            }
        }
    }

    pub(crate) fn change_row(&self, change_id: ChangeId) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached("SELECT id FROM change WHERE change_id = ? AND trimmed = 0")?
            .query_row([change_id.as_bytes().as_slice()], |row| row.get(0))
            .optional()
    }

    pub(crate) fn change_id(&self, id: i64) -> rusqlite::Result<ChangeId> {
        self.connection
            .prepare_cached("SELECT change_id FROM change WHERE id = ?")?
            .query_row([id], |row| Ok(ChangeId::from_bytes(row.get(0)?)))
    }

    /// The row of a request, made when there is none: results need no change
    /// to exist.
    pub(crate) fn request_row(
        &self,
        request_id: &RequestId,
        now: Timestamp,
    ) -> rusqlite::Result<RequestRow> {
        let known = self
            .connection
            .prepare_cached("SELECT id, change FROM request WHERE request_id = ?")?
            .query_row([request_id.as_str()], |row| {
                Ok(RequestRow {
                    id: row.get(0)?,
                    change: row.get(1)?,
                })
            })
            .optional()?;
        if let Some(row) = known {
            return Ok(row);
        }
        let id = self
            .connection
            .prepare_cached("INSERT INTO request (request_id, last_time) VALUES (?, ?)")?
            .insert(params![request_id.as_str(), now.as_micros()])?;
        Ok(RequestRow { id, change: None })
    }
}

pub(in crate::journal) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
