//! Loads the rows that a batch may touch.
//!
//! A batch runs a fixed set of statements, whatever its size. They form steps: those of one step do not depend on each
//! other, so a database behind a network needs one round trip for each step that has keys.

mod device_states;
mod devices;

use std::collections::{BTreeSet, HashSet};

use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        apply::{
            Dirty, EarlyResult, Keys, LoadedRequest, LookupKeys, Row as RowNumber, WorkingSet,
        },
        record::decode_result,
        sql::{
            Batch, Database, Result, Row, Statement, Type,
            tables::{
                device_cache::DeviceCache,
                load::devices::{LoadingChange, LoadingChanges},
                stored_change::{
                    StoredChange, change_columns, decode_change, decode_optional_change,
                },
            },
            value::values,
        },
    },
    operations,
};

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
    changes: LoadingChanges,
    /// The unfinished changes that are not in the cache.
    new_unfinished: Vec<RowNumber>,
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
    loader.changes.load_devices(db, cache, &loader.new_unfinished)?;
    if keys.unfinished_changes {
        loader.set.unfinished = cache.unfinished();
    }
    loader.changes.load_device_states(db)?;
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
            // It is NOT_SENT when the claim is applied, or may be: a late response can mark an unknown outcome as NOT_SENT.
            let state = stored.change.state;
            self.add_change(stored).needs_all |=
                state == ChangeState::NotSent || state.has_device_lock();
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
        self.changes.0.entry(stored.row).or_insert_with(|| LoadingChange::new(stored))
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
                .0
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
                if let Some(change) = self.changes.0.get_mut(&row) {
                    change.keys.extend(below.lookups.0.iter().chain(&early.0).cloned());
                }
            }
        }
        for (change_id, first_result, listed) in &keys.unmatched {
            let row = self.set.change_by_id.get(change_id);
            if let Some(change) = row.and_then(|row| self.changes.0.get_mut(row)) {
                change.keys.extend(listed.0.iter().cloned());
                change.unmatched_results.push(i64::try_from(*first_result).unwrap_or(i64::MAX));
            }
        }
        for change in self.changes.0.values_mut() {
            let kinds = operations::evidence(change.stored.change.change_type).identifying_kinds;
            change.keys.retain(|key| key.is_identifying(kinds));
            change.keys.sort_unstable();
            change.keys.dedup();
        }
    }

    fn finish(mut self) -> WorkingSet {
        let changes = self.changes.0.into_iter();
        self.set.changes = changes.map(|(row, change)| (row, change.into_loaded())).collect();
        self.set
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
