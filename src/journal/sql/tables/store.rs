//! Stores the difference that a batch has made, with a fixed set of statements.

use std::collections::BTreeMap;

use crate::{
    domain::{device_states::DeviceRef, matching::MatchKey, newtypes::ChangeId},
    journal::{
        apply::{
            ApplyError, ChangeDevices, Dirty, EventContent, LoadedChange, LoadedRequest,
            LoadedState, NewEvent, Row as RowNumber, WorkingSet,
        },
        record::{ChangeRecord, EncodedDevices, StatusRecord, encode_bitmap, packed_key},
        sql::{
            Batch, Database, Result, Statement,
            Type::{Bytes, Int, Text},
            tables::{
                columns::{STATE_EVENT, part_id, result_kind},
                forward_queue,
            },
            value::{Json, Value, values},
        },
    },
};

const INSERT_ACCOUNT: Statement =
    Statement { sql: "INSERT INTO account (id, name) VALUES (?, ?)", params: &[Int, Text] };

const INSERT_CHANGE: Statement = Statement {
    sql: "INSERT INTO change (id, change_id, account, key, fingerprint, state, accept_time, update_time,
           final_time, record, status, device_states, device_count, key_count, request, devices, owner,
           attempt)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    params: &[
        Int, Bytes, Int, Text, Bytes, Int, Int, Int, Int, Bytes, Bytes, Text, Int, Int, Int, Bytes,
        Int, Bytes,
    ],
};

const UPDATE_STATE: Statement = Statement {
    sql:
        "UPDATE change SET state = ?, accept_time = ?, update_time = ?, final_time = ?, status = ?,
           device_states = ?, request = ?, owner = ?, attempt = ?
         WHERE id = ?",
    params: &[Int, Int, Int, Int, Bytes, Text, Int, Int, Bytes, Int],
};

/// The columns with an index are as they were, except the final_time of a change in a final state.
const UPDATE_COUNTS: Statement = Statement {
    sql: "UPDATE change SET update_time = ?, final_time = ?, status = ?, device_states = ? WHERE id = ?",
    params: &[Int, Int, Bytes, Text, Int],
};

const UPDATE_ON_PLAN: Statement =
    Statement { sql: "UPDATE change SET on_plan = ? WHERE id = ?", params: &[Bytes, Int] };

const INSERT_BLOCK: Statement = Statement {
    sql: "INSERT INTO device_block (id, devices) VALUES (?, ?)",
    params: &[Int, Bytes],
};

const INSERT_KEY_PART: Statement =
    Statement { sql: "INSERT INTO key_part (id, keys) VALUES (?, ?)", params: &[Int, Bytes] };

const INSERT_DEVICE_KEY: Statement = Statement {
    sql: "INSERT INTO device_key (key, change) VALUES (?, ?) ON CONFLICT DO NOTHING",
    params: &[Bytes, Int],
};

const MERGE_OWNER: Statement = Statement {
    sql: "UPDATE identifier_owner SET owner = ? WHERE change = ? AND owner = ?",
    params: &[Int, Int, Int],
};

const INSERT_OWNER: Statement = Statement {
    sql: "INSERT INTO identifier_owner (change, identifier, owner) VALUES (?, ?, ?)",
    params: &[Int, Text, Int],
};

const INSERT_DEVICE_STATE: Statement = Statement {
    sql: "INSERT INTO device_state (id, identifier_kinds, precedence, decided_by, digests)
         VALUES (?, ?, ?, ?, ?)",
    params: &[Int, Int, Int, Int, Bytes],
};

const UPDATE_DEVICE_STATE: Statement = Statement {
    sql: "UPDATE device_state SET identifier_kinds = ?2, precedence = ?3, decided_by = ?4,
           digests = ?5
         WHERE id = ?1",
    params: &[Int, Int, Int, Int, Bytes],
};

const DELETE_UNMATCHED_RESULT: Statement = Statement {
    sql: "DELETE FROM unmatched_result WHERE change = ? AND first_result = ?",
    params: &[Int, Int],
};

const PUT_UNMATCHED_RESULT: Statement = Statement {
    sql: "INSERT INTO unmatched_result
           (change, first_result, identifier_kinds, precedence, decided_by)
         VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (change, first_result) DO UPDATE SET
           identifier_kinds = excluded.identifier_kinds, precedence = excluded.precedence,
           decided_by = excluded.decided_by",
    params: &[Int, Int, Int, Int, Int],
};

const PUT_REQUEST: Statement = Statement {
    sql: "INSERT INTO request (id, request_id, change, link_position, evidence, account, service,
           last_result, last_result_time, has_digests)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET change = excluded.change,
           link_position = excluded.link_position, evidence = excluded.evidence,
           account = excluded.account, service = excluded.service,
           last_result = excluded.last_result, last_result_time = excluded.last_result_time,
           has_digests = excluded.has_digests",
    params: &[Int, Text, Int, Int, Text, Int, Text, Int, Int, Int],
};

/// A build that stores duplicates inserts a digest again.
const INSERT_DIGEST: Statement = Statement {
    sql: "INSERT INTO result_digest (request, digest) VALUES (?, ?) ON CONFLICT DO NOTHING",
    params: &[Int, Bytes],
};

const INSERT_EVENT: Statement = Statement {
    sql: "INSERT INTO event (position, stream, account, kind, early_request, body, link)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    params: &[Int, Int, Int, Int, Int, Bytes, Bytes],
};

const INSERT_BODY: Statement = Statement {
    sql: "INSERT INTO callback_body (position, raw_json) VALUES (?, ?)",
    params: &[Int, Bytes],
};

const LINK_EVENT: Statement = Statement {
    sql: "UPDATE event SET kind = ?, link = ? WHERE position = ?",
    params: &[Int, Bytes, Int],
};

/// Stores the difference.
pub(in crate::journal::sql) fn store(db: &dyn Database, set: &mut WorkingSet) -> Result<()> {
    let accounts = set.new_accounts.iter();
    let accounts: Batch<'_> =
        accounts.map(|name| values![set.accounts.get(name).copied(), name]).collect();
    write(db, &INSERT_ACCOUNT, &accounts)?;
    store_changes(db, set)?;
    store_devices(db, set)?;
    store_requests(db, set)?;
    insert_events(db, &set.events)?;
    let links = set.linked_events.iter();
    let links: Batch<'_> = links
        .map(|(position, matched, link)| values![result_kind(Some(*matched)), link, *position])
        .collect();
    write(db, &LINK_EVENT, &links)?;
    forward_queue::insert(db, &set.forwards, &mut set.counts.forward_queue)
}

fn write(db: &dyn Database, statement: &Statement, batch: &Batch<'_>) -> Result<()> {
    if batch.is_empty() { Ok(()) } else { db.write(statement, batch) }
}

fn store_changes(db: &dyn Database, set: &WorkingSet) -> Result<()> {
    let mut new = Batch::default();
    let mut with_new_state = Batch::default();
    let mut with_new_counts = Batch::default();
    let mut on_plan = Batch::default();
    for loaded in set.changes.values() {
        let (row, change) = (loaded.row, &loaded.change);
        if let Some(indexes) = &loaded.on_plan {
            on_plan.push(values![encode_bitmap(indexes), row]);
        }
        if matches!(loaded.dirty, Dirty::Clean | Dirty::Deleted) {
            continue;
        }
        let status = StatusRecord::new(change, loaded.dispatch_position).to_bytes();
        let states = Json(&loaded.device_states).to_value()?;
        let final_time = change.state.is_final().then_some(change.update_time);
        match loaded.dirty {
            Dirty::New => {
                let devices = all_devices(loaded)?;
                new.push([
                    row.into(),
                    (&change.change_id).into(),
                    set.accounts.get(&change.account).copied().into(),
                    change.key.as_ref().into(),
                    loaded.fingerprint.as_slice().into(),
                    change.state.into(),
                    change.accept_time.into(),
                    change.update_time.into(),
                    final_time.into(),
                    ChangeRecord::new(change).to_bytes().into(),
                    status.into(),
                    states,
                    change.device_count.into(),
                    devices.keys.len().into(),
                    loaded.request.into(),
                    devices.only_block().into(),
                    loaded.owner.into(),
                    later_attempt(loaded).into(),
                ]);
            }
            _ if loaded.has_new_state => with_new_state.push([
                change.state.into(),
                change.accept_time.into(),
                change.update_time.into(),
                final_time.into(),
                status.into(),
                states,
                loaded.request.into(),
                loaded.owner.into(),
                later_attempt(loaded).into(),
                row.into(),
            ]),
            _ => with_new_counts.push([
                change.update_time.into(),
                final_time.into(),
                status.into(),
                states,
                row.into(),
            ]),
        }
    }
    write(db, &INSERT_CHANGE, &new)?;
    write(db, &UPDATE_STATE, &with_new_state)?;
    write(db, &UPDATE_COUNTS, &with_new_counts)?;
    write(db, &UPDATE_ON_PLAN, &on_plan)?;
    let new = set.changes.values().filter(|loaded| loaded.dirty == Dirty::New);
    insert_devices(db, new)
}

/// Returns the attempt, unless it is the first one.
fn later_attempt(loaded: &LoadedChange) -> Option<&ChangeId> {
    Some(&loaded.attempt.0).filter(|attempt| **attempt != loaded.change.change_id)
}

fn all_devices(loaded: &LoadedChange) -> Result<&EncodedDevices> {
    let devices = loaded.devices.encoded();
    Ok(devices.ok_or(ApplyError::NotLoaded("all devices"))?)
}

/// Inserts the blocks of new changes with several ones, and the index of their devices.
fn insert_devices<'s>(
    db: &dyn Database,
    new: impl Iterator<Item = &'s LoadedChange>,
) -> Result<()> {
    let mut blocks = Batch::default();
    let mut parts = Batch::default();
    let mut keys = Batch::default();
    for loaded in new {
        let (row, devices) = (loaded.row, all_devices(loaded)?);
        if devices.only_block().is_none() {
            for (number, block) in (0_i64..).zip(&devices.blocks) {
                blocks.push(values![part_id(row, number), block]);
            }
            for (number, part) in (0_i64..).zip(devices.key_parts()) {
                parts.push(values![part_id(row, number), part]);
            }
            continue;
        }
        for device in devices.decode()? {
            for key in device.ids.iter().map(MatchKey::from_id) {
                keys.push(values![packed_key(&key), row]);
            }
        }
    }
    write(db, &INSERT_BLOCK, &blocks)?;
    write(db, &INSERT_KEY_PART, &parts)?;
    write(db, &INSERT_DEVICE_KEY, &keys)
}

/// Stores the states of devices and unmatched results, and the owners of identifiers.
fn store_devices(db: &dyn Database, set: &WorkingSet) -> Result<()> {
    let mut merged = Batch::default();
    let mut owners = Batch::default();
    let mut new_states = Batch::default();
    let mut modified_states = Batch::default();
    let mut unmatched = Batch::default();
    let mut deleted = Batch::default();
    for LoadedChange { row, devices, .. } in set.changes.values() {
        for (from, into) in final_owners(devices) {
            merged.push(values![into, *row, DeviceRef::UnmatchedResult(from)]);
        }
        for (identifier, (owner, dirty)) in &devices.owners {
            if *dirty == Dirty::New {
                owners.push(values![*row, identifier.to_string(), *owner]);
            }
        }
        for (device, LoadedState { state, digests, dirty }) in &devices.states {
            let (kinds, precedence) = (state.kind_mask, state.precedence);
            match (device, dirty) {
                (_, Dirty::Clean) => {}
                (DeviceRef::Device(index), _) => {
                    let (id, digests) = (part_id(*row, *index), digests.as_flattened());
                    let is_new = *dirty == Dirty::New;
                    let states = if is_new { &mut new_states } else { &mut modified_states };
                    states.push(values![id, kinds, precedence, state.decided_by, digests]);
                }
                (DeviceRef::UnmatchedResult(first), Dirty::Deleted) => {
                    deleted.push(values![*row, *first]);
                }
                (DeviceRef::UnmatchedResult(first), _) => {
                    unmatched.push(values![*row, *first, kinds, precedence, state.decided_by]);
                }
            }
        }
    }
    // First, so that owners of this batch are not merged once more.
    write(db, &MERGE_OWNER, &merged)?;
    write(db, &INSERT_OWNER, &owners)?;
    write(db, &INSERT_DEVICE_STATE, &new_states)?;
    write(db, &UPDATE_DEVICE_STATE, &modified_states)?;
    write(db, &DELETE_UNMATCHED_RESULT, &deleted)?;
    write(db, &PUT_UNMATCHED_RESULT, &unmatched)
}

/// Returns the owner of the identifiers of each unmatched result that was merged: one that was merged itself later
/// owns nothing.
fn final_owners(devices: &ChangeDevices) -> BTreeMap<i64, DeviceRef> {
    let mut owners: BTreeMap<i64, DeviceRef> = BTreeMap::new();
    for (from, into) in &devices.merged {
        for owner in
            owners.values_mut().filter(|owner| **owner == DeviceRef::UnmatchedResult(*from))
        {
            *owner = *into;
        }
        owners.insert(*from, *into);
    }
    owners
}

fn store_requests(db: &dyn Database, set: &WorkingSet) -> Result<()> {
    let mut requests = Batch::default();
    let mut digests = Batch::default();
    for (request_id, request) in &set.requests {
        let account = request.account.as_ref().and_then(|name| set.accounts.get(name));
        if request.dirty != Dirty::Clean {
            requests.push(request_row(request_id.into(), request, account.copied()));
        }
        for digest in &request.new_digests {
            digests.push(values![request.row, digest.as_slice()]);
        }
    }
    write(db, &PUT_REQUEST, &requests)?;
    write(db, &INSERT_DIGEST, &digests)
}

fn request_row<'s>(
    request_id: Value<'s>,
    request: &'s LoadedRequest,
    account: Option<i64>,
) -> [Value<'s>; 10] {
    [
        request.row.into(),
        request_id,
        request.change.into(),
        request.link_position.into(),
        request.evidence.as_str().into(),
        account.into(),
        request.service.as_ref().into(),
        request.last_result.into(),
        request.last_result_time.into(),
        request.has_digests.into(),
    ]
}

fn insert_events(db: &dyn Database, events: &[NewEvent]) -> Result<()> {
    let mut rows = Batch::default();
    let mut bodies = Batch::default();
    for NewEvent { position, stream, account, content } in events {
        match content {
            EventContent::State { status, early_request } => {
                let (none, status) = (Value::Null, status.to_bytes());
                rows.push(event_row(
                    [*position, *stream],
                    *account,
                    STATE_EVENT,
                    *early_request,
                    [status.into(), none],
                ));
            }
            EventContent::Result { body, link, raw_json } => {
                let matched = link.as_ref().map(|(matched, _)| *matched);
                let fields = link.as_ref().map(|(_, fields)| fields);
                rows.push(event_row(
                    [*position, *stream],
                    *account,
                    result_kind(matched),
                    None,
                    [body.into(), fields.into()],
                ));
                if !raw_json.is_empty() {
                    bodies.push(values![*position, raw_json.as_bytes()]);
                }
            }
        }
    }
    write(db, &INSERT_EVENT, &rows)?;
    write(db, &INSERT_BODY, &bodies)
}

fn event_row<'e>(
    [position, stream]: [RowNumber; 2],
    account: Option<i64>,
    kind: i64,
    early_request: Option<RowNumber>,
    [body, link]: [Value<'e>; 2],
) -> [Value<'e>; 7] {
    [position.into(), stream.into(), account.into(), kind.into(), early_request.into(), body, link]
}
