//! What an entry does to the tables.
//!
//! A pure function of the tables and the entry, so that every replica that
//! applies the same entries has the same tables. All that happens in one
//! transaction, the engine's: nothing here commits.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::entry::{LogEntry, from_json, json, state_code, uint};
use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        device_states::DeviceStates,
        newtypes::{AccountName, CallbackService, ChangeId, RequestId},
        state::{ChangeState, Transition},
    },
    invariants::Invariant,
    journal::{
        Claim, ClaimCheck, ForwardQueueStats, Intent, JournalError, ReceivedCallback, StateCounts,
        Stored, WatchTarget,
    },
};

/// Several commands that are committed together. What is known of the changes
/// that they touch is loaded once and written back once.
pub(in crate::journal) struct WriteBatch<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) changes: BTreeMap<i64, LoadedChange>,
    pub(crate) touched: HashSet<WatchTarget>,
    /// Changes that came to a state, less those that left it.
    pub(crate) state_count_delta: StateCounts,
    /// What waits to be passed on, this batch included.
    pub(crate) forward_queue: ForwardQueueStats,
    /// The newest position that it has appended.
    position: Option<i64>,
}

/// What a batch has done, for those who are told after the commit.
pub(in crate::journal) struct Done {
    pub(in crate::journal) touched: Vec<WatchTarget>,
    pub(in crate::journal) state_count_delta: StateCounts,
    pub(in crate::journal) forward_queue: ForwardQueueStats,
    /// The newest position, where there is a new one.
    pub(in crate::journal) position: Option<u64>,
}

/// A change as it is in this batch.
pub(crate) struct LoadedChange {
    pub(crate) change: Change,
    pub(crate) device_states: DeviceStates,
    /// The state that the census has it in.
    counted: ChangeState,
    pub(crate) is_dirty: bool,
}

/// What a command comes to: the tables' own trouble apart, which undoes the
/// whole batch.
pub(in crate::journal) type ApplyResult<T> = rusqlite::Result<Result<T, JournalError>>;

/// A request's own row, and that of the change that owns it.
pub(crate) struct RequestRow {
    pub(crate) id: i64,
    pub(crate) change: Option<i64>,
}

// === impl Batch ===

impl<'c> WriteBatch<'c> {
    pub(in crate::journal) fn new(connection: &'c Connection, forwards: ForwardQueueStats) -> Self {
        Self {
            connection,
            changes: BTreeMap::new(),
            touched: HashSet::new(),
            state_count_delta: StateCounts::default(),
            forward_queue: forwards,
            position: None,
        }
    }

    /// Writes back what was loaded. To be called before the commit.
    pub(in crate::journal) fn finish(mut self) -> rusqlite::Result<Done> {
        for (id, loaded) in std::mem::take(&mut self.changes) {
            if !loaded.is_dirty {
                continue;
            }
            let change = &loaded.change;
            self.state_count_delta.add(loaded.counted, -1);
            self.state_count_delta.add(change.state, 1);
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
                    json(&loaded.device_states)?,
                    id
                ])?;
        }
        Ok(Done {
            touched: self.touched.into_iter().collect(),
            state_count_delta: self.state_count_delta,
            forward_queue: self.forward_queue,
            position: self.position.map(uint),
        })
    }

    // --- Commands --------------------------------------------------------

    /// Checks what a claim would find. Changes nothing.
    pub(in crate::journal) fn check_claim(
        &mut self,
        intent: &Intent,
    ) -> rusqlite::Result<ClaimCheck> {
        let change = &intent.change;
        let known = self.by_key(change)?;
        if let Some((known, content)) = known {
            let same_content = content == intent.fingerprint;
            if !same_content || known.state != ChangeState::NotSent {
                return Ok(ClaimCheck::KeyInUse {
                    change: known,
                    has_same_content: same_content,
                });
            }
            return Ok(match self.find_busy_device(&intent.devices, change)? {
                Some(busy) => ClaimCheck::Busy(busy),
                None => ClaimCheck::Rearm(known),
            });
        }
        Ok(match self.find_busy_device(&intent.devices, change)? {
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

    pub(in crate::journal) fn claim(&mut self, intent: &Intent) -> ApplyResult<Claim> {
        match self.check_claim(intent)? {
            ClaimCheck::Free => {}
            ClaimCheck::Rearm(change) => {
                return self.rearm(change.change_id, intent.change.create_time);
            }
            ClaimCheck::KeyInUse { .. } if Invariant::KeyCheck.is_disabled() => {
                let mut again = intent.clone();
                again.change.key = None;
                return self.claim(&again);
            }
            ClaimCheck::KeyInUse {
                change,
                has_same_content: same_content,
            } => {
                return Ok(Ok(Claim::KeyInUse {
                    change,
                    has_same_content: same_content,
                }));
            }
            ClaimCheck::Busy(busy) => return Ok(Ok(Claim::Busy(busy))),
        }
        let change = &intent.change;
        let entry = LogEntry::Queued {
            change: Box::new(change.clone()),
            fingerprint: hex(&intent.fingerprint),
            devices: intent.devices.clone(),
        };
        let position = self.append(&entry, change.create_time, None, None)?;
        self.insert_change(position, intent)?;
        self.append_state_event(position, position, 0)?;
        Ok(Ok(Claim::Created(change.clone())))
    }

    /// Queues a NOT_SENT change again, under its first ID.
    fn rearm(&mut self, change_id: ChangeId, now: Timestamp) -> ApplyResult<Claim> {
        let change = match self.apply_transition(change_id, &Transition::Rearm, now)? {
            Ok(change) => change,
            Err(error) => return Ok(Err(error)),
        };
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        let devices = self.stored_devices(id)?;
        Ok(Ok(Claim::Rearmed { change, devices }))
    }

    pub(in crate::journal) fn apply_transition(
        &mut self,
        change_id: ChangeId,
        step: &Transition,
        now: Timestamp,
    ) -> ApplyResult<Change> {
        let Some(id) = self.change_row(change_id)? else {
            return Ok(Err(JournalError::NoSuchChange));
        };
        if let Err(illegal) = self.load(id)?.change.state.after(step) {
            return Ok(Err(illegal.into()));
        }
        let entry = LogEntry::Transition {
            change_id,
            transition: step.clone(),
        };
        let position = self.append(&entry, now, None, None)?;
        self.advance(id, step, now)?;
        self.append_state_event(id, position, 0)?;
        if let Transition::Dispatch {
            already_on_plan: Some(on_plan),
            ..
        } = step
        {
            self.record_devices_on_plan(id, on_plan)?;
        }
        if let Transition::Accept {
            request_id,
            evidence,
        } = step
        {
            self.link_request(id, position, request_id, evidence, now)?;
        }
        Ok(Ok(self.load(id)?.change.clone()))
    }

    pub(in crate::journal) fn store_callback(
        &mut self,
        arrival: &ReceivedCallback,
    ) -> ApplyResult<Stored> {
        let (callback, now) = (&arrival.callback, arrival.receive_time);
        let report = &callback.result;
        let request = self.request_row(&report.request_id, now)?;
        let inserted = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO seen (request, digest) VALUES (?, ?)")?
            .execute(params![request.id, callback.digest.as_slice()])?;
        if inserted == 0 && !Invariant::Deduplication.is_disabled() {
            return Ok(Ok(Stored::Duplicate));
        }
        let entry = LogEntry::Result {
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
            .insert(WatchTarget::Request(report.request_id.clone()));
        if let Some(forwarding) = arrival.forwarding {
            self.queue_forward(position, arrival.service.as_ref(), forwarding)?;
        }
        if let Some(change) = request.change {
            self.append_result_event(change, position, 0, position, report, now)?;
            self.finish_if_complete(change, position, 1, now)?;
        }
        Ok(Ok(Stored::New(uint(position))))
    }

    // --- Their parts -----------------------------------------------------

    pub(crate) fn append(
        &mut self,
        entry: &LogEntry,
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

    pub(crate) fn advance(
        &mut self,
        id: i64,
        step: &Transition,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let loaded = self.load(id)?;
        loaded.is_dirty = true;
        loaded
            .change
            .apply(step, now)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Puts a change's state into its timeline.
    pub(crate) fn append_state_event(
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
        self.mark_touched(id);
        Ok(())
    }

    pub(crate) fn mark_touched(&mut self, id: i64) {
        if let Some(loaded) = self.changes.get(&id) {
            let requests = loaded
                .change
                .request_ids
                .iter()
                .cloned()
                .map(WatchTarget::Request);
            self.touched.extend(requests);
            self.touched
                .insert(WatchTarget::Change(loaded.change.change_id));
        }
    }

    pub(crate) fn load(&mut self, id: i64) -> rusqlite::Result<&mut LoadedChange> {
        use std::collections::btree_map::Entry as Slot;
        match self.changes.entry(id) {
            Slot::Occupied(slot) => Ok(slot.into_mut()),
            Slot::Vacant(slot) => {
                let (snapshot, tally): (String, String) = self
                    .connection
                    .prepare_cached("SELECT snapshot, tally FROM change WHERE id = ?")?
                    .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let change: Change = from_json(&snapshot)?;
                Ok(slot.insert(LoadedChange {
                    counted: change.state,
                    change,
                    device_states: from_json(&tally)?,
                    is_dirty: false,
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
