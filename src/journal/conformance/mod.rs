//! Checks of an implementation of [`Journal`](crate::journal::Journal). Each gets an empty journal, which
//! it can close and open again. Afterwards, `journal check` must find nothing.

pub(super) mod accounts;
pub(super) mod attribution;
pub(super) mod claims;
pub(super) mod devices;
pub(super) mod every_row;
mod fixtures;
pub(super) mod forward_queue;
pub(super) mod lifecycle;
pub(super) mod lists;
pub(super) mod quarantine;
pub(super) mod results;
pub(super) mod retention;
pub(super) mod statistics;

pub(super) use fixtures::{Engine, assert_sound};

/// Defines a test for each check. The expression creates an empty journal of an engine.
macro_rules! tests {
    ($engine:expr) => {
        $crate::journal::conformance::tests! { $engine;
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
                a_device_is_not_busy_because_of_a_change_of_another_account,
                a_not_sent_change_is_requeued_by_its_key_under_its_id,
                a_change_in_flight_is_settled_once_its_process_has_ended,
                an_illegal_transition_changes_nothing;
            devices:
                ten_thousand_devices_have_one_row_each_that_agrees_with_the_counts,
                a_matched_device_counts_whatever_else_is_unmatched,
                the_update_time_of_a_change_increases_while_the_clock_is_set_back;
            results:
                a_callback_is_stored_once_and_finishes_its_change_once,
                callbacks_of_one_call_are_stored_in_order_and_once,
                a_result_of_a_lookup_is_stored_only_if_it_decides_its_device,
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
                only_a_change_that_matches_makes_a_next_page,
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
            statistics:
                figures_name_the_oldest_change_that_waits_by_callback_service,
                figures_count_the_quarantine_and_requests_that_wait_for_attribution;
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
        }
    };
    ($engine:expr; $($module:ident: $($check:ident),+;)+) => {$($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let engine = $engine;
            $crate::journal::conformance::$module::$check(&engine).await;
            $crate::journal::conformance::assert_sound(&engine).await;
        }
    )+)+};
}
pub(super) use tests;
