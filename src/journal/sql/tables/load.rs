//! Loads the rows that a batch may touch.
//!
//! A batch runs a fixed set of statements, whatever its size. They form steps: those of one step do not depend on each
//! other, so a database behind a network needs one round trip for each step that has keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        device_states::{DeviceRef, DeviceState},
        matching::MatchKey,
        newtypes::{AccountName, ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        apply::{
            ChangeDevices, Dirty, EarlyResult, Keys, LoadedChange, LoadedRequest, LoadedState,
            LookupKeys, Row as RowNumber, UnfinishedChange, WorkingSet,
        },
        record::{
            DEVICES_PER_BLOCK, DIGEST_LENGTH, Digest, EncodedDevices, IdHash, decode_device,
            decode_result, find_in_part,
        },
        sql::{
            Batch, Database, PendingRows, Result, Row, Statement, Type,
            tables::{
                columns::part_id,
                device_cache::{DeviceCache, ReadMethod},
                stored_change::{StoredChange, decode_change, decode_optional_change},
            },
            value::values,
        },
    },
    operations,
};

/// The columns of a change, of [`StoredChange`].
macro_rules! change_columns {
    () => {
        "c.id, c.record, c.status, c.fingerprint, c.device_states, c.key_count, c.request, c.account, \
         c.devices, c.owner, c.attempt"
    };
}
pub(super) use change_columns;

const CHANGE_BY_ID: Statement = Statement {
    sql: concat!(
        "SELECT ",
        change_columns!(),
        " FROM change c WHERE c.change_id = ? AND c.trimmed = 0"
    ),
    params: &[Type::Bytes],
};

const CHANGE_BY_KEY: Statement = Statement {
    sql: concat!(
        "SELECT ",
        change_columns!(),
        " FROM change c WHERE c.account = (SELECT id FROM account WHERE name = ?) AND c.key = ?"
    ),
    params: &[Type::Text, Type::Text],
};

const CHANGE_BY_ROW: Statement = Statement {
    sql: concat!("SELECT ", change_columns!(), " FROM change c WHERE c.id = ?"),
    params: &[Type::Int],
};

/// A request, its account and its change.
const REQUEST: Statement = Statement {
    sql: concat!(
        "SELECT ",
        change_columns!(),
        ", r.id, r.change, r.link_position, r.evidence, a.name, r.service, r.last_result,
           r.last_result_time, r.has_digests, r.account
         FROM request r LEFT JOIN account a ON a.id = r.account
         LEFT JOIN change c ON c.id = r.change WHERE r.request_id = ?"
    ),
    params: &[Type::Text],
};
/// The index of the first column of the request in [`REQUEST`].
const REQUEST_COLUMN: usize = 11;

const ACCOUNT: Statement =
    Statement { sql: "SELECT id FROM account WHERE name = ?", params: &[Type::Text] };

const DIGEST: Statement = Statement {
    sql: "SELECT 1 FROM result_digest WHERE request = ? AND digest = ?",
    params: &[Type::Int, Type::Bytes],
};

const EARLY_RESULTS: Statement = Statement {
    sql: "SELECT position, body, account FROM event WHERE stream = ?",
    params: &[Type::Int],
};

const BLOCKS: Statement = Statement {
    sql: "SELECT id, devices FROM device_block WHERE id BETWEEN ? AND ?",
    params: &[Type::Int, Type::Int],
};

const BLOCK: Statement =
    Statement { sql: "SELECT devices FROM device_block WHERE id = ?", params: &[Type::Int] };

const KEY_PART: Statement =
    Statement { sql: "SELECT keys FROM key_part WHERE id = ?", params: &[Type::Int] };

const OWNER: Statement = Statement {
    sql: "SELECT owner FROM identifier_owner WHERE change = ? AND identifier = ?",
    params: &[Type::Int, Type::Text],
};

const DEVICE_STATE: Statement = Statement {
    sql: "SELECT identifier_kinds, precedence, decided_by, digests FROM device_state WHERE id = ?",
    params: &[Type::Int],
};

const UNMATCHED_RESULT: Statement = Statement {
    sql: "SELECT identifier_kinds, precedence, decided_by FROM unmatched_result
         WHERE change = ? AND first_result = ?",
    params: &[Type::Int, Type::Int],
};

/// The changes whose devices no other change may have.
const UNFINISHED: Statement = Statement {
    // QUEUED, DISPATCHED and OUTCOME_UNKNOWN: see ChangeState::has_device_lock.
    sql: "SELECT id FROM change INDEXED BY change_open
         WHERE state IN (1, 2, 3, 5, 9) AND state IN (1, 2, 9) AND trimmed = ?",
    params: &[Type::Int],
};

/// The rows of a batch while they are loaded.
#[derive(Default)]
struct Loader {
    set: WorkingSet,
    changes: BTreeMap<RowNumber, LoadingChange>,
    /// The unfinished changes that are not in the cache.
    new_unfinished: Vec<RowNumber>,
}

/// A change, and the devices of it that the batch needs.
struct LoadingChange {
    stored: StoredChange,
    needs_all: bool,
    /// The identifiers that the batch looks up.
    keys: Vec<MatchKey>,
    unmatched_results: Vec<i64>,
    devices: ChangeDevices,
}

/// Loads the rows that a batch may touch. The caller sets the position and the counts.
pub(in crate::journal) fn load(
    db: &dyn Database,
    keys: &Keys,
    cache: &mut DeviceCache,
) -> Result<WorkingSet> {
    let mut loader = Loader::default();
    let unfinished = loader.load_by_keys(db, keys)?;
    if keys.unfinished_changes {
        loader.new_unfinished = cache.retain_unfinished(&unfinished);
    }
    loader.load_dependent_rows(db, keys)?;
    loader.select_devices(keys);
    loader.load_devices(db, cache)?;
    if keys.unfinished_changes {
        loader.set.unfinished = cache.unfinished();
    }
    loader.load_device_states(db)?;
    Ok(loader.finish())
}

impl Loader {
    /// Loads the rows with the keys of the batch. Returns the rows of all unfinished changes.
    fn load_by_keys(&mut self, db: &dyn Database, keys: &Keys) -> Result<BTreeSet<RowNumber>> {
        let mut ids: BTreeSet<ChangeId> = keys.changes.iter().copied().collect();
        ids.extend(keys.requests.values().flat_map(|request| &request.links));
        ids.extend(keys.unmatched.iter().map(|(change_id, ..)| change_id));
        let ids: Batch<'_> = ids.iter().map(|id| values![id]).collect();
        let named: Vec<_> = keys.idempotency_keys.iter().collect();
        let names: Batch<'_> = named.iter().map(|(account, key)| values![account, key]).collect();
        let requested: Vec<&RequestId> = keys.requests.keys().collect();
        let requests: Batch<'_> = requested.iter().map(|id| values![*id]).collect();
        let account_names: Vec<&AccountName> = keys.accounts.iter().collect();
        let accounts: Batch<'_> = account_names.iter().map(|name| values![*name]).collect();
        let unfinished: Batch<'_> =
            keys.unfinished_changes.then_some(values![0_i64]).into_iter().collect();

        let ids = db.start(&CHANGE_BY_ID, &ids)?;
        let names = db.start(&CHANGE_BY_KEY, &names)?;
        let requests = db.start(&REQUEST, &requests)?;
        let accounts = db.start(&ACCOUNT, &accounts)?;
        let unfinished = db.start(&UNFINISHED, &unfinished)?;

        ids.for_each(&mut |_, row| {
            self.add_change(decode_change(row, 0)?);
            Ok(())
        })?;
        names.for_each(&mut |index, row| {
            let stored = decode_change(row, 0)?;
            if let Some((account, key)) = named.get(index) {
                self.set.change_by_key.insert((account.clone(), key.clone()), stored.row);
            }
            // It is NOT_SENT when the claim is applied, or may be.
            let state = stored.change.state;
            self.add_change(stored).needs_all |=
                state == ChangeState::NotSent || state.is_in_flight();
            Ok(())
        })?;
        requests.for_each(&mut |index, row| {
            let (request, account) = decode_request(row)?;
            if let (Some(name), Some(number)) = (&request.account, account) {
                self.set.accounts.insert(name.clone(), number);
            }
            if let Some(stored) = decode_optional_change(row, 0)? {
                self.add_change(stored);
            }
            if let Some(request_id) = requested.get(index) {
                self.set.requests.insert((*request_id).clone(), request);
            }
            Ok(())
        })?;
        accounts.for_each(&mut |index, row| {
            if let Some(name) = account_names.get(index) {
                self.set.accounts.insert((*name).clone(), row.get(0)?);
            }
            Ok(())
        })?;
        let mut rows = BTreeSet::new();
        unfinished.for_each(&mut |_, row| {
            rows.insert(row.get(0)?);
            Ok(())
        })?;
        for request_id in requested {
            self.set.requests.entry(request_id.clone()).or_insert_with(new_request);
        }
        Ok(rows)
    }

    fn add_change(&mut self, stored: StoredChange) -> &mut LoadingChange {
        let change = &stored.change;
        self.set.accounts.insert(change.account.clone(), stored.account);
        self.set.change_by_id.insert(change.change_id, stored.row);
        self.changes.entry(stored.row).or_insert_with(|| LoadingChange::new(stored))
    }

    /// Loads the rows that belong to those of the first step.
    fn load_dependent_rows(&mut self, db: &dyn Database, keys: &Keys) -> Result<()> {
        let mut digests = Batch::default();
        let mut early_results = Batch::default();
        let (mut digest_of, mut early_of) = (Vec::new(), Vec::new());
        for (request_id, below) in &keys.requests {
            let Some(request) = self.set.requests.get(request_id) else {
                continue;
            };
            for digest in below.digests.iter().filter(|_| request.has_digests) {
                digests.push(values![request.row, digest.as_slice()]);
                digest_of.push((request_id, *digest));
            }
            if request.row > 0 && request.change.is_none() && !below.links.is_empty() {
                early_results.push(values![request.row]);
                early_of.push(request_id);
            }
        }
        let changes: Batch<'_> = self.new_unfinished.iter().map(|row| values![*row]).collect();

        let digests = db.start(&DIGEST, &digests)?;
        let early_results = db.start(&EARLY_RESULTS, &early_results)?;
        let changes = db.start(&CHANGE_BY_ROW, &changes)?;

        digests.for_each(&mut |index, _| {
            if let Some((request_id, digest)) = digest_of.get(index)
                && let Some(request) = self.set.requests.get_mut(request_id)
            {
                request.digests.insert(*digest);
            }
            Ok(())
        })?;
        early_results.for_each(&mut |index, row| {
            let request = early_of.get(index).and_then(|id| self.set.requests.get_mut(*id));
            if let Some(request) = request {
                request.early_results.push(EarlyResult {
                    position: row.get(0)?,
                    result: decode_result(row.get(1)?)?,
                    account: row.get(2)?,
                });
            }
            Ok(())
        })?;
        changes.for_each(&mut |_, row| {
            let stored = decode_change(row, 0)?;
            self.changes
                .entry(stored.row)
                .or_insert_with(|| LoadingChange::new(stored))
                .needs_all = true;
            Ok(())
        })?;
        for request_id in early_of {
            if let Some(request) = self.set.requests.get_mut(request_id) {
                request.early_results.sort_unstable_by_key(|early| early.position);
            }
        }
        self.number_new_accounts(db, keys)
    }

    /// Numbers the accounts that are not stored yet.
    fn number_new_accounts(&mut self, db: &dyn Database, keys: &Keys) -> Result<()> {
        let new: BTreeSet<&AccountName> =
            keys.accounts.iter().filter(|name| !self.set.accounts.contains_key(name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let sql = "SELECT coalesce(max(id), 0) FROM account";
        let last: i64 = db.get(sql, &[], |row| row.get(0))?;
        self.set.new_accounts = new.into_iter().cloned().collect();
        self.set.accounts.extend(self.set.new_accounts.iter().cloned().zip(last + 1..));
        Ok(())
    }

    /// Assigns the identifiers of the batch to the changes whose devices may have them.
    fn select_devices(&mut self, keys: &Keys) {
        for (request_id, below) in &keys.requests {
            let Some(request) = self.set.requests.get(request_id) else {
                continue;
            };
            let mut early = LookupKeys::default();
            request.early_results.iter().for_each(|one| early.add(&one.result.device_ids));
            let by_id = |id| self.set.change_by_id.get(id).copied();
            let linked: Vec<RowNumber> = match request.change {
                Some(row) => vec![row],
                None => below.links.iter().filter_map(by_id).collect(),
            };
            for row in linked {
                if let Some(change) = self.changes.get_mut(&row) {
                    change.keys.extend(below.lookups.0.iter().chain(&early.0).cloned());
                }
            }
        }
        for (change_id, first_result, listed) in &keys.unmatched {
            let row = self.set.change_by_id.get(change_id);
            if let Some(change) = row.and_then(|row| self.changes.get_mut(row)) {
                change.keys.extend(listed.0.iter().cloned());
                change.unmatched_results.push(i64::try_from(*first_result).unwrap_or(i64::MAX));
            }
        }
        for change in self.changes.values_mut() {
            let kinds = operations::evidence(change.stored.change.change_type).identifying_kinds;
            change.keys.retain(|key| key.is_identifying(kinds));
            change.keys.sort_unstable();
            change.keys.dedup();
        }
    }

    /// Loads the devices with the identifiers of the batch.
    fn load_devices(&mut self, db: &dyn Database, cache: &mut DeviceCache) -> Result<()> {
        let mut ranges = Batch::default();
        let mut range_of = Vec::new();
        let mut parts = Batch::default();
        let mut part_of = Vec::new();
        for (row, change) in &mut self.changes {
            match change.read_method(cache) {
                ReadMethod::Nothing => {}
                ReadMethod::Cached(devices) => change.set_all(devices),
                ReadMethod::All if change.stored.devices.is_some() => change.set_all_of_block()?,
                ReadMethod::All => {
                    let [first, last] = super::columns::part_ids(*row);
                    ranges.push(values![first, last]);
                    range_of.push(*row);
                }
                ReadMethod::Index => {
                    for key in &change.keys {
                        parts.push(values![change.stored.part_of(key)]);
                        part_of.push((*row, key.clone()));
                    }
                }
            }
        }
        let ranges = db.start(&BLOCKS, &ranges)?;
        let parts = db.start(&KEY_PART, &parts)?;

        let mut blocks: HashMap<RowNumber, BTreeMap<i64, Vec<u8>>> = HashMap::new();
        ranges.for_each(&mut |index, row| {
            if let Some(change) = range_of.get(index) {
                blocks.entry(*change).or_default().insert(row.get(0)?, row.get(1)?);
            }
            Ok(())
        })?;
        let mut candidates: Vec<(RowNumber, MatchKey, Vec<u32>)> = Vec::new();
        parts.for_each(&mut |index, row| {
            if let Some((change, key)) = part_of.get(index) {
                let found = find_in_part(row.get(0)?, IdHash::of(key));
                candidates.push((*change, key.clone(), found));
            }
            Ok(())
        })?;
        for (row, blocks) in blocks {
            if let Some(change) = self.changes.get_mut(&row) {
                let devices = EncodedDevices::from_blocks(blocks.into_values().collect())?;
                change.set_all(Arc::new(devices));
            }
        }
        for (row, change) in &self.changes {
            if let Some(devices) = change.devices.encoded() {
                cache.keep_recent(*row, devices);
            }
        }
        for row in &self.new_unfinished {
            if let Some(LoadingChange { stored, devices, .. }) = self.changes.get(row)
                && let Some(devices) = devices.encoded().cloned()
            {
                let change_id = stored.change.change_id;
                cache.keep_unfinished(UnfinishedChange { row: *row, change_id, devices });
            }
        }
        self.find_candidates(db, candidates)
    }

    /// Loads the candidates of an index, and finds the devices in devices that are loaded as a whole.
    fn find_candidates(
        &mut self,
        db: &dyn Database,
        candidates: Vec<(RowNumber, MatchKey, Vec<u32>)>,
    ) -> Result<()> {
        let blocks = candidates.iter().flat_map(|(row, _, indexes)| {
            indexes.iter().map(move |index| part_id(*row, index / DEVICES_PER_BLOCK))
        });
        let blocks = load_blocks(db, blocks.collect())?;
        for (row, key, indexes) in candidates {
            let mut found = Vec::new();
            for index in indexes {
                found.push((index, blocks.device(row, index)?));
            }
            if let Some(change) = self.changes.get_mut(&row) {
                change.devices.add_sent_with(&key, found);
            }
        }
        for LoadingChange { keys, devices, .. } in self.changes.values_mut() {
            let Some(encoded) = devices.encoded().cloned() else {
                continue;
            };
            for key in keys {
                let mut found = Vec::new();
                for index in encoded.candidates(IdHash::of(key)) {
                    found.push((index, encoded.device(index)?));
                }
                devices.add_sent_with(key, found);
            }
        }
        Ok(())
    }

    /// Loads the states of the devices and unmatched results that have the identifiers of the batch.
    fn load_device_states(&mut self, db: &dyn Database) -> Result<()> {
        let mut wanted: BTreeSet<(RowNumber, DeviceRef)> = BTreeSet::new();
        let mut owners = Batch::default();
        let mut owner_of = Vec::new();
        for (row, change) in &self.changes {
            let unmatched = change.unmatched_results.iter().copied();
            wanted.extend(unmatched.map(|first| (*row, DeviceRef::UnmatchedResult(first))));
            if change.stored.change.device_count == 1 {
                wanted.insert((*row, DeviceRef::Device(0)));
            }
            for key in &change.keys {
                let sent = change.devices.sent_with(key)?;
                if sent.is_empty() {
                    owners.push(values![*row, key.to_string()]);
                    owner_of.push((*row, key));
                }
                wanted.extend(sent.iter().map(|index| (*row, DeviceRef::Device(*index))));
            }
        }
        let states = StateReads::of(&wanted);
        let states = states.start(db)?;
        let owners = db.start(&OWNER, &owners)?;
        let mut loaded = states.load()?;
        let mut found: Vec<(RowNumber, MatchKey, DeviceRef)> = Vec::new();
        owners.for_each(&mut |index, row| {
            if let Some((change, key)) = owner_of.get(index) {
                found.push((*change, (*key).clone(), row.get(0)?));
            }
            Ok(())
        })?;
        let others = found.iter().map(|(row, _, owner)| (*row, *owner));
        let others: BTreeSet<_> = others.filter(|other| !wanted.contains(other)).collect();
        let states = StateReads::of(&others);
        let states = states.start(db)?;
        self.load_owning_devices(db, &others)?;
        loaded.extend(states.load()?);
        for (row, key, owner) in found {
            if let Some(change) = self.changes.get_mut(&row) {
                change.devices.owners.insert(key, (owner, Dirty::Clean));
            }
        }
        for (row, device, state) in loaded {
            if let Some(change) = self.changes.get_mut(&row) {
                change.devices.states.insert(device, state);
            }
        }
        Ok(())
    }

    /// Loads the devices that own an identifier that was not sent.
    fn load_owning_devices(
        &mut self,
        db: &dyn Database,
        owners: &BTreeSet<(RowNumber, DeviceRef)>,
    ) -> Result<()> {
        let devices: Vec<(RowNumber, u32)> = owners
            .iter()
            .filter_map(|(row, owner)| match owner {
                DeviceRef::Device(index) => Some((*row, *index)),
                DeviceRef::UnmatchedResult(_) => None,
            })
            .collect();
        let is_unknown = |(row, _): &&(RowNumber, u32)| {
            self.changes.get(row).is_some_and(|change| change.devices.encoded().is_none())
        };
        let unknown = devices.iter().filter(is_unknown);
        let blocks = unknown.map(|(row, index)| part_id(*row, index / DEVICES_PER_BLOCK));
        let blocks = load_blocks(db, blocks.collect())?;
        for (row, index) in devices {
            if let Some(LoadingChange { devices, .. }) = self.changes.get_mut(&row) {
                let device = match devices.encoded() {
                    Some(encoded) => encoded.device(index)?,
                    None => blocks.device(row, index)?,
                };
                devices.add_sent(index, device);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> WorkingSet {
        let changes = self.changes.into_iter();
        self.set.changes = changes.map(|(row, change)| (row, change.into_loaded())).collect();
        self.set
    }
}

/// Blocks of devices, by their id.
struct Blocks(HashMap<i64, Vec<u8>>);

fn load_blocks(db: &dyn Database, ids: BTreeSet<i64>) -> Result<Blocks> {
    let ids: Vec<i64> = ids.into_iter().collect();
    let batch: Batch<'_> = ids.iter().map(|id| values![*id]).collect();
    let mut blocks = HashMap::new();
    db.start(&BLOCK, &batch)?.for_each(&mut |index, row| {
        blocks.extend(ids.get(index).map(|id| row.get(0).map(|block| (*id, block))).transpose()?);
        Ok(())
    })?;
    Ok(Blocks(blocks))
}

impl Blocks {
    fn device(&self, change: RowNumber, index: u32) -> Result<SentDevice> {
        let block = self.0.get(&part_id(change, index / DEVICES_PER_BLOCK));
        let block = block.map_or([].as_slice(), Vec::as_slice);
        Ok(decode_device(block, index % DEVICES_PER_BLOCK)?)
    }
}

/// The reads of the states of devices and unmatched results.
struct StateReads {
    devices: Vec<(RowNumber, u32)>,
    unmatched: Vec<(RowNumber, i64)>,
    device_batch: Batch<'static>,
    unmatched_batch: Batch<'static>,
}

/// [`StateReads`] that have started.
struct PendingStates<'r> {
    reads: &'r StateReads,
    devices: Box<dyn PendingRows + 'r>,
    unmatched: Box<dyn PendingRows + 'r>,
}

impl StateReads {
    fn of(wanted: &BTreeSet<(RowNumber, DeviceRef)>) -> Self {
        let (mut devices, mut unmatched) = (Vec::new(), Vec::new());
        for (row, device) in wanted {
            match device {
                DeviceRef::Device(index) => devices.push((*row, *index)),
                DeviceRef::UnmatchedResult(first) => unmatched.push((*row, *first)),
            }
        }
        Self {
            device_batch: devices
                .iter()
                .map(|(row, index)| values![part_id(*row, *index)])
                .collect(),
            unmatched_batch: unmatched.iter().map(|(row, first)| values![*row, *first]).collect(),
            devices,
            unmatched,
        }
    }

    fn start<'r>(&'r self, db: &'r dyn Database) -> Result<PendingStates<'r>> {
        Ok(PendingStates {
            reads: self,
            devices: db.start(&DEVICE_STATE, &self.device_batch)?,
            unmatched: db.start(&UNMATCHED_RESULT, &self.unmatched_batch)?,
        })
    }
}

impl PendingStates<'_> {
    fn load(self) -> Result<Vec<(RowNumber, DeviceRef, LoadedState)>> {
        let mut loaded = Vec::new();
        self.devices.for_each(&mut |index, row| {
            if let Some((change, device)) = self.reads.devices.get(index) {
                let digests = decode_digests(row.get(3)?);
                let state = LoadedState { state: decode_state(row)?, digests, dirty: Dirty::Clean };
                loaded.push((*change, DeviceRef::Device(*device), state));
            }
            Ok(())
        })?;
        self.unmatched.for_each(&mut |index, row| {
            if let Some((change, first)) = self.reads.unmatched.get(index) {
                let state = LoadedState { state: decode_state(row)?, ..LoadedState::default() };
                loaded.push((*change, DeviceRef::UnmatchedResult(*first), state));
            }
            Ok(())
        })?;
        Ok(loaded)
    }
}

impl LoadingChange {
    fn new(stored: StoredChange) -> Self {
        let kinds = operations::evidence(stored.change.change_type).identifying_kinds;
        let devices = ChangeDevices::some(kinds, stored.change.device_count);
        Self { stored, needs_all: false, keys: Vec::new(), unmatched_results: Vec::new(), devices }
    }

    fn read_method(&self, cache: &mut DeviceCache) -> ReadMethod {
        let device_count = self.stored.change.device_count;
        // That many devices are loaded faster as a whole.
        let is_small = device_count <= DEVICES_PER_BLOCK;
        if self.needs_all
            || (is_small && !self.keys.is_empty())
            || self.keys.len() > device_count as usize
        {
            ReadMethod::All
        } else if self.keys.is_empty() {
            ReadMethod::Nothing
        } else {
            cache.read_method(self.stored.row, device_count, self.keys.len())
        }
    }

    fn set_all(&mut self, devices: Arc<EncodedDevices>) {
        let change = &self.stored.change;
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        self.devices = ChangeDevices::all(kinds, change.device_count, devices);
    }

    /// Uses the only block of a small change, which is in its row.
    fn set_all_of_block(&mut self) -> Result<()> {
        let block = self.stored.devices.take().unwrap_or_default();
        self.set_all(Arc::new(EncodedDevices::from_blocks(vec![block])?));
        Ok(())
    }

    fn into_loaded(self) -> LoadedChange {
        let Self { stored, devices, .. } = self;
        LoadedChange {
            row: stored.row,
            change: stored.change,
            fingerprint: stored.fingerprint,
            attempt: stored.attempt,
            owner: stored.owner,
            device_states: stored.device_states,
            dispatch_position: stored.dispatch_position,
            request: stored.request,
            devices,
            on_plan: None,
            dirty: Dirty::Clean,
            has_new_state: false,
        }
    }
}

/// Decodes a request of [`REQUEST`], and the number of its account.
fn decode_request(row: &dyn Row) -> Result<(LoadedRequest, Option<i64>)> {
    let column = |index| REQUEST_COLUMN + index;
    let request = LoadedRequest {
        row: row.get(column(0))?,
        change: row.get(column(1))?,
        link_position: row.get(column(2))?,
        evidence: row.get(column(3))?,
        account: row.get(column(4))?,
        service: row.get(column(5))?,
        last_result: row.get(column(6))?,
        last_result_time: row.get(column(7))?,
        has_digests: row.get(column(8))?,
        ..new_request()
    };
    Ok((request, row.get(column(9))?))
}

/// A request without a row. The first result or the link gives it one.
fn new_request() -> LoadedRequest {
    LoadedRequest {
        row: 0,
        change: None,
        link_position: 0,
        evidence: String::new(),
        account: None,
        service: None,
        last_result: 0,
        last_result_time: Timestamp::from_micros(0),
        has_digests: false,
        digests: HashSet::new(),
        new_digests: Vec::new(),
        early_results: Vec::new(),
        dirty: Dirty::Clean,
    }
}

fn decode_state(row: &dyn Row) -> Result<DeviceState> {
    Ok(DeviceState { kind_mask: row.get(0)?, precedence: row.get(1)?, decided_by: row.get(2)? })
}

fn decode_digests(bytes: &[u8]) -> Vec<Digest> {
    bytes.chunks_exact(DIGEST_LENGTH).filter_map(|digest| digest.try_into().ok()).collect()
}
