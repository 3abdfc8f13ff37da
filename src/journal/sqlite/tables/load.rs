//! Loads the rows that a batch may touch.
//!
//! A batch runs a fixed set of statements. SQLite has no round trips, so each runs once for each key.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, btree_map::Entry},
    sync::Arc,
};

use rusqlite::{Connection, Result, Row as SqlRow, params};

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
            ApplyError, ChangeDevices, Counts, Dirty, EarlyResult, Keys, LoadedChange,
            LoadedRequest, LoadedState, LookupKeys, RequestKeys, Row, WorkingSet,
        },
        record::{DEVICES_PER_BLOCK, DIGEST_LENGTH, Digest, IdHash, decode_result},
        sqlite::tables::{
            CachedSql,
            columns::{int, invalid, part_id, uint},
            device_cache::DeviceCache,
            devices::ChangeDeviceTable,
            stored_change::{COLUMNS, StoredChange, decode_change, find_change},
        },
    },
    operations,
};

/// The devices of a change that a batch needs.
#[derive(Default)]
struct Lookups {
    needs_all: bool,
    keys: Vec<MatchKey>,
    unmatched_results: Vec<i64>,
}

/// Loads the rows that a batch may touch.
pub(in crate::journal::sqlite) fn load(
    db: &Connection,
    keys: &Keys,
    cache: &mut DeviceCache,
    last_position: u64,
    counts: Counts,
) -> Result<WorkingSet> {
    let mut set = WorkingSet::new(last_position, counts);
    let mut changes = BTreeMap::new();
    let mut lookups: BTreeMap<Row, Lookups> = BTreeMap::new();
    for change_id in &keys.changes {
        load_by_id(db, *change_id, &mut set, &mut changes)?;
    }
    for (account, key) in &keys.idempotency_keys {
        let found = db.find(
            &format!(
                "SELECT {COLUMNS} FROM change
                 WHERE account = (SELECT id FROM account WHERE name = ?) AND key = ?"
            ),
            params![account, key],
            decode_change,
        )?;
        if let Some(found) = found {
            set.change_by_key.insert((account.clone(), key.clone()), found.row);
            set.change_by_id.insert(found.change.change_id, found.row);
            // It is NOT_SENT when the claim is applied, or may be.
            let state = found.change.state;
            lookups.entry(found.row).or_default().needs_all |=
                state == ChangeState::NotSent || state.is_in_flight();
            changes.insert(found.row, found);
        }
    }
    for (request_id, below) in &keys.requests {
        load_request(db, request_id, below, &mut set, &mut changes, &mut lookups)?;
    }
    for (change_id, first_result, listed) in &keys.unmatched {
        load_by_id(db, *change_id, &mut set, &mut changes)?;
        if let Some(row) = set.change_by_id.get(change_id) {
            let lookups = lookups.entry(*row).or_default();
            lookups.keys.extend(listed.0.iter().cloned());
            lookups.unmatched_results.push(int(*first_result));
        }
    }
    for (row, stored) in changes {
        let lookups = lookups.remove(&row).unwrap_or_default();
        let devices = load_devices(db, cache, &stored, lookups)?;
        set.changes.insert(row, stored.into_loaded(devices));
    }
    if keys.unfinished_changes {
        set.unfinished = cache.unfinished(db)?;
    }
    load_accounts(db, keys, &mut set)?;
    Ok(set)
}

fn load_by_id(
    db: &Connection,
    change_id: ChangeId,
    set: &mut WorkingSet,
    changes: &mut BTreeMap<Row, StoredChange>,
) -> Result<()> {
    if set.change_by_id.contains_key(&change_id) {
        return Ok(());
    }
    let sql = format!("SELECT {COLUMNS} FROM change WHERE change_id = ? AND trimmed = 0");
    if let Some(found) = db.find(&sql, [change_id], decode_change)? {
        set.change_by_id.insert(change_id, found.row);
        changes.insert(found.row, found);
    }
    Ok(())
}

fn load_request(
    db: &Connection,
    request_id: &RequestId,
    below: &RequestKeys,
    set: &mut WorkingSet,
    changes: &mut BTreeMap<Row, StoredChange>,
    lookups: &mut BTreeMap<Row, Lookups>,
) -> Result<()> {
    let mut request = find_request(db, request_id)?.unwrap_or_else(new_request);
    if request.has_digests {
        let mut find =
            db.statement("SELECT 1 FROM result_digest WHERE request = ? AND digest = ?")?;
        for digest in &below.digests {
            if find.exists(params![int(request.row), digest.as_slice()])? {
                request.digests.insert(*digest);
            }
        }
    }
    let mut keys = below.lookups.0.clone();
    let mut linked: Vec<Row> = Vec::new();
    if let Some(row) = request.change {
        linked.push(row);
        if let Entry::Vacant(vacant) = changes.entry(row) {
            vacant.insert(find_change(db, row)?);
        }
    } else if !below.links.is_empty() {
        request.early_results = load_early_results(db, request.row)?;
        let mut early = LookupKeys::default();
        request.early_results.iter().for_each(|one| early.add(&one.result.device_ids));
        keys.append(&mut early.0);
        for change_id in &below.links {
            load_by_id(db, *change_id, set, changes)?;
            linked.extend(set.change_by_id.get(change_id));
        }
    }
    for row in linked {
        lookups.entry(row).or_default().keys.extend(keys.iter().cloned());
    }
    set.requests.insert(request_id.clone(), request);
    Ok(())
}

fn find_request(db: &Connection, request_id: &RequestId) -> Result<Option<LoadedRequest>> {
    db.find(
        "SELECT r.id, r.change, r.link_position, r.evidence, a.name, r.service, r.last_result,
           r.last_result_time, r.has_digests
         FROM request r LEFT JOIN account a ON a.id = r.account WHERE r.request_id = ?",
        [request_id],
        |row| {
            Ok(LoadedRequest {
                row: uint(row.get(0)?),
                change: row.get::<_, Option<i64>>(1)?.map(uint),
                link_position: uint(row.get(2)?),
                evidence: row.get(3)?,
                account: row.get(4)?,
                service: row.get(5)?,
                last_result: uint(row.get(6)?),
                last_result_time: row.get(7)?,
                has_digests: row.get(8)?,
                ..new_request()
            })
        },
    )
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

fn load_early_results(db: &Connection, request: Row) -> Result<Vec<EarlyResult>> {
    db.list(
        "SELECT position, body, account FROM event WHERE stream = ? ORDER BY position",
        [int(request)],
        |row| {
            Ok(EarlyResult {
                position: uint(row.get(0)?),
                result: decode_result(row.get_ref(1)?.as_blob()?).map_err(invalid)?,
                account: row.get(2)?,
            })
        },
    )
}

/// Loads the numbers of the accounts of a batch, and numbers new ones.
fn load_accounts(db: &Connection, keys: &Keys, set: &mut WorkingSet) -> Result<()> {
    let mut names: BTreeSet<AccountName> = keys.accounts.iter().cloned().collect();
    names.extend(set.changes.values().map(|loaded| loaded.change.account.clone()));
    names.extend(set.requests.values().filter_map(|request| request.account.clone()));
    for name in names {
        let known = "SELECT id FROM account WHERE name = ?";
        if let Some(id) = db.find(known, [&name], |row| row.get(0))? {
            set.accounts.insert(name, id);
        } else {
            set.new_accounts.push(name);
        }
    }
    if !set.new_accounts.is_empty() {
        let last: i64 = db.get("SELECT coalesce(max(id), 0) FROM account", [], |row| row.get(0))?;
        set.accounts.extend(set.new_accounts.iter().cloned().zip(last + 1..));
    }
    Ok(())
}

/// Loads the devices of a change that a batch may touch.
fn load_devices(
    db: &Connection,
    cache: &mut DeviceCache,
    stored: &StoredChange,
    mut lookups: Lookups,
) -> Result<ChangeDevices> {
    let kinds = operations::evidence(stored.change.change_type).identifying_kinds;
    lookups.keys.retain(|key| key.is_identifying(kinds));
    lookups.keys.sort_unstable();
    lookups.keys.dedup();
    let table = stored.table();
    let device_count = stored.change.device_count;
    // That many devices are loaded faster as a whole.
    let is_small = device_count <= DEVICES_PER_BLOCK;
    let needs_all = lookups.needs_all
        || (is_small && !lookups.keys.is_empty())
        || lookups.keys.len() > device_count as usize;
    let all = if needs_all {
        Some(Arc::new(stored.table().all_sent(db)?))
    } else if lookups.keys.is_empty() {
        None
    } else {
        cache.recent(db, table, lookups.keys.len())?
    };
    let mut devices = match all {
        Some(all) => ChangeDevices::all(kinds, device_count, all),
        None => ChangeDevices::some(kinds, device_count),
    };
    let mut states: BTreeSet<DeviceRef> =
        lookups.unmatched_results.into_iter().map(DeviceRef::UnmatchedResult).collect();
    if device_count == 1 {
        states.insert(DeviceRef::Device(0));
    }
    for key in &lookups.keys {
        devices.add_sent_with(key, candidates(db, table, &devices, key)?);
        let sent = devices.sent_with(key).map_err(broken)?;
        if !sent.is_empty() {
            states.extend(sent.iter().copied().map(DeviceRef::Device));
            continue;
        }
        let owner: Option<DeviceRef> = db.find(
            "SELECT owner FROM identifier_owner WHERE change = ? AND identifier = ?",
            params![int(stored.row), key.to_string()],
            |row| row.get(0),
        )?;
        if let Some(owner) = owner {
            if let DeviceRef::Device(index) = owner
                && states.insert(owner)
            {
                devices.add_sent(index, load_sent(db, table, &devices, index)?);
            }
            states.insert(owner);
            devices.owners.insert(key.clone(), (owner, Dirty::Clean));
        }
    }
    for device in states {
        if let Some(state) = load_state(db, stored.row, device)? {
            devices.states.insert(device, state);
        }
    }
    Ok(devices)
}

/// Returns the devices that may have been sent with an identifier.
fn candidates(
    db: &Connection,
    table: ChangeDeviceTable,
    devices: &ChangeDevices,
    key: &MatchKey,
) -> Result<Vec<(u32, SentDevice)>> {
    let hash = IdHash::of(key);
    let indexes = match devices.encoded() {
        Some(encoded) => encoded.candidates(hash).collect(),
        None => table.candidates(db, hash)?,
    };
    indexes.into_iter().map(|index| Ok((index, load_sent(db, table, devices, index)?))).collect()
}

/// Decodes a device that is loaded, or loads it.
fn load_sent(
    db: &Connection,
    table: ChangeDeviceTable,
    devices: &ChangeDevices,
    index: u32,
) -> Result<SentDevice> {
    match devices.encoded() {
        Some(encoded) => encoded.device(index).map_err(invalid),
        None => table.sent(db, index),
    }
}

/// Reports an error of rules that ran on incomplete rows.
pub(in crate::journal::sqlite) fn broken(error: ApplyError) -> rusqlite::Error {
    rusqlite::types::FromSqlError::other(error).into()
}

/// Loads the state of a device or an unmatched result, if it has one.
fn load_state(db: &Connection, change: Row, device: DeviceRef) -> Result<Option<LoadedState>> {
    match device {
        DeviceRef::Device(index) => db.find(
            "SELECT identifier_kinds, precedence, decided_by, digests FROM device_state
             WHERE id = ?",
            [part_id(change, index)],
            |row| {
                let digests = decode_digests(row.get_ref(3)?.as_blob()?);
                Ok(LoadedState { state: decode_state(row)?, digests, dirty: Dirty::Clean })
            },
        ),
        DeviceRef::UnmatchedResult(first_result) => db.find(
            "SELECT identifier_kinds, precedence, decided_by FROM unmatched_result
             WHERE change = ? AND first_result = ?",
            [int(change), first_result],
            |row| Ok(LoadedState { state: decode_state(row)?, ..LoadedState::default() }),
        ),
    }
}

fn decode_state(row: &SqlRow<'_>) -> Result<DeviceState> {
    Ok(DeviceState { kind_mask: row.get(0)?, precedence: row.get(1)?, decided_by: row.get(2)? })
}

fn decode_digests(bytes: &[u8]) -> Vec<Digest> {
    bytes.chunks_exact(DIGEST_LENGTH).filter_map(|digest| digest.try_into().ok()).collect()
}

impl StoredChange {
    fn into_loaded(self, devices: ChangeDevices) -> LoadedChange {
        LoadedChange {
            row: self.row,
            change: self.change,
            fingerprint: self.fingerprint,
            device_states: self.device_states,
            dispatch_position: self.dispatch_position,
            request: self.request,
            devices,
            on_plan: None,
            dirty: Dirty::Clean,
            has_new_state: false,
        }
    }
}
