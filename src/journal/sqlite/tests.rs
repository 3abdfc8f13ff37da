use std::{future::Future, pin::Pin, sync::Arc};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::journal::conformance::{self, Engine};

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn options(&self) -> Options {
        Options {
            dir: self.0.path().join("made/when/missing"),
            origin: crate::journal::Origin::sandbox(),
            allow_network_filesystem: false,
            instruments: Instruments::unread(),
        }
    }
}

impl Engine for Directory {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        let journal: Arc<dyn Journal> = Arc::new(Embedded::open(&self.options()).unwrap());
        Box::pin(async { journal })
    }
}

macro_rules! conforms {
    ($($room:ident: $($check:ident),+;)+) => {$($(
        #[tokio::test]
        async fn $check() {
            conformance::$room::$check(&Directory::new()).await;
        }
    )+)+};
}

conforms!(
    claims:
        a_key_names_one_change_across_a_restart,
        a_device_under_way_is_busy_until_its_outcome_is_known,
        what_was_not_sent_is_queued_again_by_its_key_under_its_name,
        a_step_that_the_state_does_not_allow_changes_nothing;
    devices:
        ten_thousand_devices_have_one_row_each_that_agrees_with_the_counts,
        a_matched_device_counts_whatever_else_is_unmatched,
        the_update_time_of_a_change_increases_while_the_clock_is_set_back;
    results:
        a_callback_is_stored_once_and_finishes_its_change_once,
        an_early_callback_takes_its_place_at_the_binding,
        early_callbacks_of_every_device_finish_a_change_at_its_binding,
        observers_hear_what_each_commit_touched,
        a_stray_that_is_named_counts_for_its_device_and_its_past_stays,
        a_result_that_names_two_devices_decides_for_neither_in_any_order,
        a_result_that_names_two_devices_by_what_other_results_told_counts_for_neither,
        a_result_that_names_two_devices_by_numbers_that_were_not_sent_counts_for_neither,
        a_result_that_names_a_device_and_a_foreign_one_is_the_devices;
    upkeep:
        lists_are_newest_first_filtered_and_paged,
        trimming_removes_whole_old_changes_and_nothing_else,
        a_change_that_is_not_final_is_never_trimmed,
        deadlines_and_unfinished_calls_are_found_after_a_restart,
        a_note_is_kept_by_its_name_until_it_is_emptied,
        nothing_is_taken_after_close,
        room_that_is_set_aside_stands_in_nobodys_way;
    attribution:
        a_request_that_names_exactly_the_devices_of_an_unknown_change_is_its,
        what_does_not_prove_it_binds_nothing,
        of_two_changes_that_it_can_be_it_is_neither,
        a_closed_change_is_a_rival_for_as_long_as_it_is_on_record,
        a_late_callback_of_a_closed_change_is_not_another_changes,
        a_change_that_was_sent_with_other_kinds_of_identifiers_is_a_rival,
        a_closed_change_that_has_a_request_of_its_own_is_no_rival,
        a_rival_that_the_list_may_rule_out_is_no_reason_not_to_ask_for_it,
        a_list_of_a_requests_devices_alone_is_the_whole_set_or_proves_nothing,
        a_result_that_arrives_after_the_look_keeps_its_request_from_being_attributed,
        results_come_before_or_after_a_change_by_their_positions_whatever_the_clock_says,
        unattributed_requests_are_listed_and_waiting_changes_are_found_by_age;
    forwards:
        what_is_stored_to_be_passed_on_waits_until_it_was_also_after_a_restart,
        the_oldest_are_given_up_for_newer_ones_and_for_their_age;
);

#[tokio::test]
async fn a_second_process_is_kept_out_and_another_schema_is_refused() {
    let directory = Directory::new();
    let open = Embedded::open(&directory.options()).unwrap();
    let second = Embedded::open(&directory.options());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    open.close().await;
    drop(open);

    let path = directory.options().dir.join("journal.db");
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let other = Embedded::open(&directory.options())
        .err()
        .unwrap()
        .to_string();
    assert!(other.contains("another version"), "{other}");
}

#[tokio::test]
async fn each_journal_has_its_own_epoch_and_fingerprints_and_keeps_them() {
    let (one, other) = (Directory::new(), Directory::new());
    let first = Embedded::open(&one.options()).unwrap();
    let (epoch, print) = (first.epoch(), first.fingerprint(b"content"));
    first.close().await;
    drop(first);
    let again = Embedded::open(&one.options()).unwrap();
    assert_eq!(
        (again.epoch(), again.fingerprint(b"content")),
        (epoch, print)
    );
    let stranger = Embedded::open(&other.options()).unwrap();
    assert_ne!(stranger.epoch(), epoch);
    assert_ne!(stranger.fingerprint(b"content"), print);
}
