//! The rows of a batch, and the difference that it makes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::{
    domain::{
        change::{Attempt, Change},
        clock::Timestamp,
        device_states::DeviceStates,
        newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
        result::{DeviceResult, Match},
        state::{ChangeState, Transition},
    },
    journal::{
        Commit, ForwardQueueStats, JournalError, StateCounts, WatchTarget,
        apply::{ApplyError, ChangeDevices, UnfinishedChange},
        record::{Digest, StatusRecord},
    },
};

/// The number of a change's or a request's row. It is the position of its first event, so a change and a
/// request never have the same number.
pub(in crate::journal) type Row = u64;

/// The kind of write that a row needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::journal) enum Dirty {
    /// As stored.
    #[default]
    Clean,
    /// Not stored yet.
    New,
    /// Stored and modified.
    Modified,
    /// To be deleted, if it is stored.
    Deleted,
}

/// Counts that the engine keeps in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::journal) struct Counts {
    pub(in crate::journal) states: StateCounts,
    pub(in crate::journal) forward_queue: ForwardQueueStats,
    /// The size of the quarantine.
    pub(in crate::journal) quarantine_bytes: u64,
}

/// The rows of a batch.
#[derive(Debug, Default)]
pub(in crate::journal) struct WorkingSet {
    /// The newest position.
    pub(in crate::journal) last_position: u64,
    /// The counts after the commands that were applied so far.
    pub(in crate::journal) counts: Counts,
    pub(in crate::journal) changes: BTreeMap<Row, LoadedChange>,
    pub(in crate::journal) change_by_id: HashMap<ChangeId, Row>,
    pub(in crate::journal) change_by_key: HashMap<(AccountName, IdempotencyKey), Row>,
    pub(in crate::journal) requests: HashMap<RequestId, LoadedRequest>,
    /// The numbers of accounts.
    pub(in crate::journal) accounts: HashMap<AccountName, i64>,
    /// The accounts that are not stored yet.
    pub(in crate::journal) new_accounts: Vec<AccountName>,
    /// The changes whose devices no other change may have, with those of this batch.
    pub(in crate::journal) unfinished: Vec<UnfinishedChange>,
    /// The number of this process.
    pub(in crate::journal) owner: i64,
    /// The numbers of the processes that hold their lease, if a command needs them.
    pub(in crate::journal) live_owners: HashSet<i64>,
    /// New events, by position.
    pub(in crate::journal) events: Vec<NewEvent>,
    /// Stored results that were linked to a change.
    pub(in crate::journal) linked_events: Vec<(u64, Match, Vec<u8>)>,
    pub(in crate::journal) forwards: Vec<NewForward>,
    /// Requests without a change that have a new result.
    unattributed: BTreeSet<RequestId>,
    /// True if a change came to have an unknown outcome, or ceased to.
    has_new_candidates: bool,
}

/// A change.
#[derive(Debug)]
pub(in crate::journal) struct LoadedChange {
    pub(in crate::journal) row: Row,
    pub(in crate::journal) change: Change,
    pub(in crate::journal) fingerprint: [u8; 32],
    pub(in crate::journal) device_states: DeviceStates,
    /// The last attempt to send it.
    pub(in crate::journal) attempt: Attempt,
    /// The number of the process that made this attempt.
    pub(in crate::journal) owner: i64,
    /// The position of the last DISPATCHED event; 0 if there is none.
    pub(in crate::journal) dispatch_position: u64,
    /// The request that is linked to it.
    pub(in crate::journal) request: Option<Row>,
    pub(in crate::journal) devices: ChangeDevices,
    /// The devices that were on the plan before it was sent, if they were recorded in this batch.
    pub(in crate::journal) on_plan: Option<Vec<u32>>,
    pub(in crate::journal) dirty: Dirty,
    /// True if a transition was applied: then the columns with an index have changed.
    pub(in crate::journal) has_new_state: bool,
}

/// A request of ThingSpace.
#[derive(Debug)]
pub(in crate::journal) struct LoadedRequest {
    /// The number of the row; 0 until the first event is stored.
    pub(in crate::journal) row: Row,
    pub(in crate::journal) change: Option<Row>,
    pub(in crate::journal) link_position: u64,
    /// The evidence of the attribution; empty if the response to the POST named the request.
    pub(in crate::journal) evidence: String,
    pub(in crate::journal) account: Option<AccountName>,
    pub(in crate::journal) service: Option<CallbackService>,
    pub(in crate::journal) last_result: u64,
    pub(in crate::journal) last_result_time: Timestamp,
    /// True if results that belong to no device have digests.
    pub(in crate::journal) has_digests: bool,
    /// Those digests, among the ones that the batch names.
    pub(in crate::journal) digests: HashSet<Digest>,
    /// The digests that the batch has added.
    pub(in crate::journal) new_digests: Vec<Digest>,
    /// Its stored results, if the batch may link it to a change.
    pub(in crate::journal) early_results: Vec<EarlyResult>,
    pub(in crate::journal) dirty: Dirty,
}

/// A result that was stored before its request was linked to a change.
#[derive(Debug, Clone)]
pub(in crate::journal) struct EarlyResult {
    pub(in crate::journal) position: u64,
    pub(in crate::journal) result: DeviceResult,
    /// The account that has the result in its timeline at this position.
    pub(in crate::journal) account: Option<i64>,
}

/// An event to append.
#[derive(Debug)]
pub(in crate::journal) struct NewEvent {
    pub(in crate::journal) position: u64,
    /// The change of a state, or the request of a result.
    pub(in crate::journal) stream: Row,
    pub(in crate::journal) account: Option<i64>,
    pub(in crate::journal) content: EventContent,
}

/// The content of an event to append.
#[derive(Debug)]
pub(in crate::journal) enum EventContent {
    State {
        status: StatusRecord,
        /// The request whose earlier results join the account's timeline here, unless they are in it already.
        early_request: Option<Row>,
    },
    Result {
        body: Vec<u8>,
        /// The fields that the change adds, once the request is linked.
        link: Option<(Match, Vec<u8>)>,
        raw_json: String,
    },
}

/// A result to forward.
#[derive(Debug)]
pub(in crate::journal) struct NewForward {
    pub(in crate::journal) position: u64,
    pub(in crate::journal) service: Option<CallbackService>,
    pub(in crate::journal) queue_time: Timestamp,
    pub(in crate::journal) max_waiting: u64,
}

impl Dirty {
    /// Marks a row as modified.
    pub(in crate::journal) fn mark(&mut self) {
        if *self != Self::New {
            *self = Self::Modified;
        }
    }
}

impl WorkingSet {
    /// Returns the number of a change.
    pub(in crate::journal) fn change_row(&self, change_id: ChangeId) -> Result<Row, JournalError> {
        self.change_by_id.get(&change_id).copied().ok_or(JournalError::NoSuchChange)
    }

    pub(in crate::journal) fn change(&mut self, row: Row) -> Result<&mut LoadedChange, ApplyError> {
        self.changes.get_mut(&row).ok_or(ApplyError::NotLoaded("a change"))
    }

    /// Returns a request. It is new if it has no number.
    pub(in crate::journal) fn request(
        &mut self,
        request_id: &RequestId,
    ) -> Result<&mut LoadedRequest, ApplyError> {
        self.requests.get_mut(request_id).ok_or(ApplyError::NotLoaded("a request"))
    }

    /// Returns the number of an account.
    pub(in crate::journal) fn account(&self, name: &AccountName) -> Result<i64, ApplyError> {
        self.accounts.get(name).copied().ok_or(ApplyError::NotLoaded("an account"))
    }

    pub(in crate::journal) fn next_position(&mut self) -> u64 {
        self.last_position += 1;
        self.last_position
    }

    /// Applies a transition, and appends its event. Returns the position. An illegal transition changes
    /// nothing.
    pub(in crate::journal) fn advance(
        &mut self,
        row: Row,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<u64, ApplyError> {
        let loaded = self.change(row)?;
        let before = loaded.change.state;
        loaded.change.apply(transition, now).map_err(JournalError::from)?;
        let after = loaded.change.state;
        loaded.dirty.mark();
        loaded.has_new_state = true;
        self.counts.states.add(before, -1);
        self.counts.states.add(after, 1);
        // A change without a response may have made the same request as one with an unknown outcome.
        let has_unknown = self.counts.states.get(ChangeState::OutcomeUnknown) > 0;
        self.has_new_candidates |= before == ChangeState::OutcomeUnknown
            || after == ChangeState::OutcomeUnknown
            || (has_unknown && before == ChangeState::Dispatched);
        let position = self.last_position + 1;
        if after == ChangeState::Dispatched {
            self.change(row)?.dispatch_position = position;
        }
        self.append_state(row)
    }

    /// Appends the state of a change as an event. Returns the position.
    pub(in crate::journal) fn append_state(&mut self, row: Row) -> Result<u64, ApplyError> {
        let position = self.next_position();
        let loaded = self.change(row)?;
        let status = StatusRecord::new(&loaded.change, loaded.dispatch_position);
        let account = loaded.change.account.clone();
        let content = EventContent::State { status, early_request: None };
        let account = Some(self.account(&account)?);
        self.events.push(NewEvent { position, stream: row, account, content });
        Ok(position)
    }

    /// Records that a request without a change has a new result.
    pub(in crate::journal) fn mark_unattributed(&mut self, request_id: &RequestId) {
        self.unattributed.insert(request_id.clone());
    }

    /// Returns the notification for the listeners.
    pub(in crate::journal) fn commit(&mut self) -> Commit {
        let streams: HashSet<Row> = self.events.iter().map(|event| event.stream).collect();
        let mut targets = HashSet::new();
        let modified = self.changes.values().filter(|loaded| loaded.dirty != Dirty::Clean);
        for loaded in modified {
            targets.insert(WatchTarget::Change(loaded.change.change_id));
            targets.extend(loaded.change.request_ids.iter().cloned().map(WatchTarget::Request));
        }
        for (request_id, request) in &self.requests {
            if streams.contains(&request.row) || request.dirty != Dirty::Clean {
                targets.insert(WatchTarget::Request(request_id.clone()));
            }
        }
        let accounts: HashSet<i64> = self.events.iter().filter_map(|event| event.account).collect();
        let touched = self.accounts.iter().filter(|(_, id)| accounts.contains(id));
        targets.extend(touched.map(|(name, _)| WatchTarget::Account(name.clone())));
        Commit {
            targets: targets.into_iter().collect(),
            unattributed: std::mem::take(&mut self.unattributed).into_iter().collect(),
            has_new_candidates: self.has_new_candidates,
        }
    }
}

impl LoadedRequest {
    /// Adds the digest of a result that belongs to no device.
    pub(in crate::journal) fn add_digest(&mut self, digest: Digest) {
        self.digests.insert(digest);
        self.new_digests.push(digest);
        if !self.has_digests {
            self.has_digests = true;
            self.dirty.mark();
        }
    }
}

impl LoadedChange {
    /// Updates the counts after `device_states` has changed.
    pub(in crate::journal) fn update_counts(&mut self, now: Timestamp) {
        self.change.counts = self.device_states.counts(self.change.device_count);
        self.change.touch(now);
        self.dirty.mark();
    }
}
