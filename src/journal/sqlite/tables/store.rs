//! Stores the difference that a batch has made.

use rusqlite::{CachedStatement, Connection, Result, params, types::Null};

use crate::{
    domain::{device_states::DeviceRef, matching::MatchKey},
    journal::{
        apply::{
            ApplyError, ChangeDevices, Dirty, EventContent, LoadedChange, LoadedRequest,
            LoadedState, NewEvent, Row, WorkingSet,
        },
        record::{ChangeRecord, EncodedDevices, StatusRecord, encode_bitmap, packed_key},
        sqlite::tables::{
            CachedSql,
            columns::{Json, STATE_EVENT, int, part_id, result_kind},
            forward_queue,
            load::broken,
        },
    },
};

/// Stores the difference.
pub(in crate::journal::sqlite) fn store(db: &Connection, set: &mut WorkingSet) -> Result<()> {
    for name in &set.new_accounts {
        let id = set.accounts.get(name);
        db.execute_cached("INSERT INTO account (id, name) VALUES (?, ?)", params![id, name])?;
    }
    for loaded in set.changes.values() {
        store_change(db, loaded, set)?;
        store_device_states(db, loaded.row, &loaded.devices)?;
    }
    for (request_id, request) in &set.requests {
        let account = request.account.as_ref().and_then(|name| set.accounts.get(name));
        store_request(db, request_id.as_str(), request, account.copied())?;
    }
    insert_events(db, &set.events)?;
    for (position, matched, link) in &set.linked_events {
        db.execute_cached(
            "UPDATE event SET kind = ?, link = ? WHERE position = ?",
            params![result_kind(Some(*matched)), link, int(*position)],
        )?;
    }
    forward_queue::insert(db, &set.forwards, &mut set.counts.forward_queue)
}

fn store_change(db: &Connection, loaded: &LoadedChange, set: &WorkingSet) -> Result<()> {
    let change = &loaded.change;
    let status = StatusRecord::new(change, loaded.dispatch_position).to_bytes();
    let states = Json(&loaded.device_states);
    match loaded.dirty {
        Dirty::New => {
            let devices = loaded.devices.encoded();
            let devices = devices.ok_or_else(|| broken(ApplyError::NotLoaded("all devices")))?;
            insert_devices(db, loaded.row, devices)?;
            let block = devices.blocks.first().filter(|_| devices.blocks.len() == 1);
            db.execute_cached(
                "INSERT INTO change (id, change_id, account, key, fingerprint, state, accept_time,
                   update_time, record, status, device_states, device_count, key_count,
                   request, devices)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    int(loaded.row),
                    change.change_id,
                    set.accounts.get(&change.account),
                    change.key,
                    loaded.fingerprint,
                    change.state,
                    change.accept_time,
                    change.update_time,
                    ChangeRecord::new(change).to_bytes(),
                    status,
                    states,
                    change.device_count,
                    int(devices.keys.len()),
                    loaded.request.map(int),
                    block,
                ],
            )?;
        }
        Dirty::Modified if loaded.has_new_state => {
            db.execute_cached(
                "UPDATE change SET state = ?, accept_time = ?, update_time = ?, status = ?,
                   device_states = ?, request = ?
                 WHERE id = ?",
                params![
                    change.state,
                    change.accept_time,
                    change.update_time,
                    status,
                    states,
                    loaded.request.map(int),
                    int(loaded.row)
                ],
            )?;
        }
        Dirty::Modified => {
            // The columns with an index are as they were.
            db.execute_cached(
                "UPDATE change SET update_time = ?, status = ?, device_states = ? WHERE id = ?",
                params![change.update_time, status, states, int(loaded.row)],
            )?;
        }
        Dirty::Clean | Dirty::Deleted => {}
    }
    if let Some(on_plan) = &loaded.on_plan {
        db.execute_cached(
            "UPDATE change SET on_plan = ? WHERE id = ?",
            params![encode_bitmap(on_plan), int(loaded.row)],
        )?;
    }
    Ok(())
}

/// Inserts the blocks of a new change with several ones, and the index of its devices.
fn insert_devices(db: &Connection, change: Row, devices: &EncodedDevices) -> Result<()> {
    if devices.blocks.len() > 1 {
        let mut insert = db.statement("INSERT INTO device_block (id, devices) VALUES (?, ?)")?;
        for (number, block) in (0_i64..).zip(&devices.blocks) {
            insert.execute(params![part_id(change, number), block])?;
        }
        let mut insert = db.statement("INSERT INTO key_part (id, keys) VALUES (?, ?)")?;
        for (number, part) in (0_i64..).zip(devices.key_parts()) {
            insert.execute(params![part_id(change, number), part])?;
        }
        return Ok(());
    }
    let mut insert =
        db.statement("INSERT OR IGNORE INTO device_key (key, change) VALUES (?, ?)")?;
    for device in devices.decode().map_err(super::columns::invalid)? {
        for key in device.ids.iter().map(MatchKey::from_id) {
            insert.execute(params![packed_key(&key), int(change)])?;
        }
    }
    Ok(())
}

fn store_device_states(db: &Connection, change: Row, devices: &ChangeDevices) -> Result<()> {
    // First, so that owners of this batch are not merged once more.
    for (unmatched, into) in &devices.merged {
        db.execute_cached(
            "UPDATE identifier_owner SET owner = ? WHERE change = ? AND owner = ?",
            params![into, int(change), DeviceRef::UnmatchedResult(*unmatched)],
        )?;
    }
    for (identifier, (owner, dirty)) in &devices.owners {
        if *dirty == Dirty::New {
            db.execute_cached(
                "INSERT INTO identifier_owner (change, identifier, owner) VALUES (?, ?, ?)",
                params![int(change), identifier.to_string(), owner],
            )?;
        }
    }
    for (device, state) in &devices.states {
        match (device, state.dirty) {
            (_, Dirty::Clean) => {}
            (DeviceRef::Device(index), _) => {
                put_device_state(db, part_id(change, *index), state)?;
            }
            (DeviceRef::UnmatchedResult(first_result), Dirty::Deleted) => {
                db.execute_cached(
                    "DELETE FROM unmatched_result WHERE change = ? AND first_result = ?",
                    [int(change), *first_result],
                )?;
            }
            (DeviceRef::UnmatchedResult(first_result), _) => {
                let LoadedState { state, .. } = state;
                db.execute_cached(
                    "INSERT OR REPLACE INTO unmatched_result
                       (change, first_result, identifier_kinds, precedence, decided_by)
                     VALUES (?, ?, ?, ?, ?)",
                    params![
                        int(change),
                        first_result,
                        state.kind_mask,
                        state.precedence,
                        state.decided_by
                    ],
                )?;
            }
        }
    }
    Ok(())
}

fn put_device_state(db: &Connection, id: i64, loaded: &LoadedState) -> Result<()> {
    let LoadedState { state, digests, .. } = loaded;
    db.execute_cached(
        "INSERT OR REPLACE INTO device_state
           (id, identifier_kinds, precedence, decided_by, digests)
         VALUES (?, ?, ?, ?, ?)",
        params![id, state.kind_mask, state.precedence, state.decided_by, digests.as_flattened()],
    )?;
    Ok(())
}

fn store_request(
    db: &Connection,
    request_id: &str,
    request: &LoadedRequest,
    account: Option<i64>,
) -> Result<()> {
    if request.dirty != Dirty::Clean {
        db.execute_cached(
            "INSERT INTO request (id, request_id, change, link_position, evidence, account, service,
               last_result, last_result_time, has_digests)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET change = excluded.change,
               link_position = excluded.link_position, evidence = excluded.evidence,
               account = excluded.account, service = excluded.service,
               last_result = excluded.last_result, last_result_time = excluded.last_result_time,
               has_digests = excluded.has_digests",
            params![
                int(request.row),
                request_id,
                request.change.map(int),
                int(request.link_position),
                request.evidence,
                account,
                request.service,
                int(request.last_result),
                request.last_result_time,
                request.has_digests,
            ],
        )?;
    }
    for digest in &request.new_digests {
        // A build that stores duplicates inserts it again.
        db.execute_cached(
            "INSERT OR IGNORE INTO result_digest (request, digest) VALUES (?, ?)",
            params![int(request.row), digest.as_slice()],
        )?;
    }
    Ok(())
}

fn insert_events(db: &Connection, events: &[NewEvent]) -> Result<()> {
    let mut insert = db.statement(
        "INSERT INTO event (position, stream, account, kind, early_request, body, link)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut insert_body =
        db.statement("INSERT INTO callback_body (position, raw_json) VALUES (?, ?)")?;
    for event in events {
        insert_event(&mut insert, event)?;
        if let EventContent::Result { raw_json, .. } = &event.content
            && !raw_json.is_empty()
        {
            insert_body.execute(params![int(event.position), raw_json.as_bytes()])?;
        }
    }
    Ok(())
}

fn insert_event(insert: &mut CachedStatement<'_>, event: &NewEvent) -> Result<()> {
    let (position, stream) = (int(event.position), int(event.stream));
    match &event.content {
        EventContent::State { status, early_request } => insert.execute(params![
            position,
            stream,
            event.account,
            STATE_EVENT,
            early_request.map(int),
            status.to_bytes(),
            Null,
        ])?,
        EventContent::Result { body, link, .. } => {
            let matched = link.as_ref().map(|(matched, _)| *matched);
            insert.execute(params![
                position,
                stream,
                event.account,
                result_kind(matched),
                Null,
                body,
                link.as_ref().map(|(_, fields)| fields),
            ])?
        }
    };
    Ok(())
}
