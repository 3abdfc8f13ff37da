use std::{future::Future, pin::Pin, sync::Arc};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::journal::sqlite::*;
use crate::{
    callbacks::payload,
    domain::{
        clock::Timestamp,
        identifier::DeviceId,
        newtypes::{AccountName, ChangeId},
    },
    journal::{
        ChangeFilter, ChangeStore, Intent, Journal, NewResult, Origin, ReceivedCallback,
        ResultStore, Stored,
        conformance::{self, Engine},
        sqlite::{marker::Marker, tables::changes::MAX_DEVICE_LOOKUPS},
    },
    operations::testing::{esim, iccid},
    telemetry::Instruments,
};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions {
            dir: self.0.path().join("made/when/missing"),
            origin: Origin::sandbox(),
            allow_network_filesystem: false,
            instruments: Instruments::noop(),
        }
    }
}

impl Engine for Directory {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&self.options()).unwrap());
        Box::pin(async { journal })
    }
}

macro_rules! conforms {
    ($($module:ident: $($check:ident),+;)+) => {$($(
        #[tokio::test]
        async fn $check() {
            conformance::$module::$check(&Directory::new()).await;
        }
    )+)+};
}

conforms!(
    accounts:
        an_account_has_the_events_of_its_changes_and_requests_in_one_order,
        trimming_records_how_far_the_timeline_of_an_account_is_incomplete,
        a_partly_trimmed_change_is_missing_from_the_timeline_of_its_account,
        an_early_result_of_another_account_joins_the_account_of_its_change,
        removals_are_counted_and_kept_as_far_as_they_matter,
        commit_listeners_learn_of_unattributed_requests_and_unknown_outcomes;
    claims:
        a_key_names_one_change_across_a_restart,
        a_device_is_busy_until_the_outcome_of_its_change_is_known,
        a_not_sent_change_is_requeued_by_its_key_under_its_id,
        an_illegal_transition_changes_nothing;
    devices:
        ten_thousand_devices_have_one_row_each_that_agrees_with_the_counts,
        a_matched_device_counts_whatever_else_is_unmatched,
        the_update_time_of_a_change_increases_while_the_clock_is_set_back;
    results:
        a_callback_is_stored_once_and_finishes_its_change_once,
        an_early_callback_joins_the_timeline_when_its_request_is_linked,
        early_callbacks_of_every_device_finish_a_change_when_its_request_is_linked,
        commit_listeners_receive_the_targets_of_each_commit,
        a_resolved_unmatched_result_counts_for_its_device_and_keeps_past_events,
        a_result_that_names_two_devices_decides_for_neither_in_any_order,
        a_result_that_names_two_devices_by_identifiers_of_other_results_counts_for_neither,
        a_result_with_two_unsent_mdns_counts_for_neither,
        a_result_that_names_a_device_and_a_foreign_one_counts_for_the_device;
    lists:
        lists_are_newest_first_filtered_and_paged,
        a_large_change_and_its_device_are_found_by_an_identifier;
    retention:
        trimming_removes_whole_old_changes_and_nothing_else,
        a_result_that_arrives_while_its_request_is_trimmed_is_kept,
        a_change_that_is_not_final_is_never_trimmed,
        deadlines_and_unfinished_calls_are_found_after_a_restart;
    lifecycle:
        a_kv_value_is_stored_until_it_is_set_to_empty,
        writes_fail_after_close,
        reservations_do_not_block_other_writes;
    quarantine:
        a_released_callback_is_stored_once_and_a_missing_one_is_reported,
        a_full_quarantine_deletes_only_old_reviewed_callbacks;
    attribution:
        a_request_that_names_exactly_the_devices_of_an_unknown_change_is_attributed,
        insufficient_evidence_attributes_nothing,
        a_request_that_fits_two_changes_is_attributed_to_neither,
        a_closed_change_is_a_rival_until_it_is_trimmed,
        a_late_callback_of_a_closed_change_is_not_attributed_to_another,
        a_change_that_was_sent_with_other_kinds_of_identifiers_is_a_rival,
        a_closed_change_that_has_a_request_of_its_own_is_no_rival,
        a_rival_that_the_device_list_may_rule_out_does_not_prevent_the_lookup,
        a_device_list_proves_attribution_only_if_it_is_complete,
        a_result_that_arrives_after_the_check_prevents_attribution,
        results_and_dispatches_are_ordered_by_position_not_by_clock,
        unattributed_requests_are_listed_and_waiting_changes_are_found_by_age;
    forward_queue:
        queued_forwards_survive_a_restart_until_they_are_delivered,
        the_oldest_forwards_are_displaced_by_newer_ones_and_expire;
);

#[tokio::test]
async fn a_second_process_and_another_schema_version_are_rejected() {
    let directory = Directory::new();
    let open = SqliteJournal::open(&directory.options()).unwrap();
    let second = SqliteJournal::open(&directory.options());
    assert!(matches!(second, Err(JournalOpenError { failure: OpenFailure::Locked, .. })));
    open.close().await;
    drop(open);

    let path = directory.options().dir.join("journal.db");
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let error = SqliteJournal::open(&directory.options()).err().unwrap().to_string();
    assert!(error.contains("schema version 1"), "{error}");
}

#[tokio::test]
async fn each_journal_has_its_own_epoch_and_fingerprints_and_keeps_them() {
    let (one, other) = (Directory::new(), Directory::new());
    let first = SqliteJournal::open(&one.options()).unwrap();
    let (epoch, fingerprint) = (first.epoch(), first.fingerprint(b"content"));
    first.close().await;
    drop(first);
    let again = SqliteJournal::open(&one.options()).unwrap();
    assert_eq!((again.epoch(), again.fingerprint(b"content")), (epoch, fingerprint));
    let other = SqliteJournal::open(&other.options()).unwrap();
    assert_ne!(other.epoch(), epoch);
    assert_ne!(other.fingerprint(b"content"), fingerprint);
}

#[tokio::test]
async fn accepting_a_loss_changes_the_epoch_and_reuses_no_position() {
    let callback = |body: &str| ReceivedCallback {
        callback: payload::parse(body.as_bytes()).unwrap(),
        account: None,
        service: None,
        receive_time: Timestamp::from_micros(1),
        forwarding: None,
    };
    let directory = Directory::new();
    let options = directory.options();
    let journal = SqliteJournal::open(&options).unwrap();
    let epoch = journal.epoch();
    let first = journal.store_callback(callback(r#"{"requestId":"first"}"#));
    assert_eq!(first.await.unwrap(), new_at(1));
    journal.close().await;
    drop(journal);

    let ahead = Marker { epoch, position: 40 };
    marker::create(&options.dir, ahead).unwrap();
    let damage = match SqliteJournal::open(&options) {
        Err(JournalOpenError { failure: OpenFailure::Damaged(damage), .. }) => damage,
        _ => panic!("the loss is not detected"),
    };
    let behind = Damage::Behind { database: 1, marker: 40 };
    assert_eq!(damage, behind);
    let accepted = accept_loss(&options.dir, false).unwrap();
    let expected = AcceptedLoss { database_position: 1, marker_position: Some(40) };
    assert_eq!(accepted, Some(expected));
    let journal = SqliteJournal::open(&options).unwrap();
    assert_ne!(journal.epoch(), epoch);
    let second = journal.store_callback(callback(r#"{"requestId":"second"}"#));
    assert_eq!(second.await.unwrap(), new_at(41));
    journal.close().await;
}

fn new_at(position: u64) -> Stored {
    Stored::New(NewResult { position, change: None })
}

#[tokio::test]
async fn a_page_looks_for_a_device_in_a_bounded_number_of_large_changes() {
    let directory = Directory::new();
    let journal = SqliteJournal::open(&directory.options()).unwrap();
    let mut made = Vec::new();
    for (key, numbers) in [("small", 90..91), ("large", 0..20)] {
        let (request, now) = (esim(key, numbers), Timestamp::from_micros(1));
        let change = request.to_change(ChangeId::new(now), now);
        made.push(change.change_id);
        let fingerprint = journal.fingerprint(&request.fingerprint_input());
        let devices = request.devices.clone();
        journal.claim(Intent { change, fingerprint, devices, dispatch: None }).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    // Copies of the large change, which has position 2.
    let mut database = Connection::open(directory.options().dir.join("journal.db")).unwrap();
    let transaction = database.transaction().unwrap();
    let copies = i64::try_from(MAX_DEVICE_LOOKUPS).unwrap() + 9;
    for id in 3..3 + copies {
        transaction
            .execute(
                "INSERT INTO change (id, change_id, account, fingerprint, state, update_time, record,
                   status, device_states, device_count, key_count)
                 SELECT ?1, randomblob(16), account, fingerprint, state, update_time, record,
                   status, device_states, device_count, key_count FROM change WHERE id = 2",
                [id],
            )
            .unwrap();
        for (table, column) in [("device_block", "devices"), ("key_part", "keys")] {
            let copy = format!(
                "INSERT INTO {table} (id, {column})
                 SELECT id + ((?1 - 2) << 20), {column} FROM {table} WHERE id >> 20 = 2"
            );
            transaction.execute(&copy, [id]).unwrap();
        }
    }
    transaction.commit().unwrap();
    drop(database);

    let journal = SqliteJournal::open(&directory.options()).unwrap();
    let find = async |number: usize, account: &str, limit, after| {
        let device = Some(DeviceId::new("iccid".parse().unwrap(), iccid(number)).unwrap());
        let account = Some(AccountName::parse(account).unwrap());
        let filter = ChangeFilter { device, account, limit, after, ..ChangeFilter::default() };
        let page = journal.changes(filter).await.unwrap();
        let found: Vec<ChangeId> = page.changes.iter().map(|change| change.change_id).collect();
        (found, page.next)
    };
    const ACCOUNT: &str = "0000123456-00001";
    let (found, next) = find(90, ACCOUNT, 10, None).await;
    assert_eq!((found, next), (vec![], Some(12)));
    assert_eq!(find(90, ACCOUNT, 10, next).await, (vec![made[0]], None));
    let (found, next) = find(19, ACCOUNT, 3, Some(4)).await;
    assert_eq!((found.len(), found.last(), next), (2, Some(&made[1]), None));
    assert_eq!(find(19, "0000999999-00001", 10, None).await, (vec![], None));
    journal.close().await;
}
