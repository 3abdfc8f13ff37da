use std::fs;

use super::*;
use crate::{
    domain::{newtypes::RequestId, state::ChangeState},
    journal::{
        Attribution, ChangeFilter, Journal,
        conformance::every_row::{accept_change, fill, success_of},
        sqlite,
        transfer::{
            FileKind, Purpose,
            tests::{Directory, NOON, filled_file},
            verify,
        },
    },
};

/// Fills a directory from a file, with a value that the file does not have.
fn restore(directory: &Directory, file: &[u8]) -> crate::journal::transfer::ImportReport {
    let update = |header: &FileHeader, stored: &[u8]| {
        assert_eq!(stored, [0, 255]);
        Ok(header.last_position.to_be_bytes().to_vec())
    };
    let updates = [ValueUpdate { name: "first", update: &update }];
    directory
        .import_for(Purpose::Restore { updates: &updates, allow_unsound: false }, file)
        .unwrap()
}

async fn states(journal: &dyn Journal) -> Vec<(String, ChangeState)> {
    let filter = ChangeFilter { limit: 100, ..ChangeFilter::default() };
    let changes = journal.changes(filter).await.unwrap().changes.into_iter();
    let changes =
        changes.filter_map(|change| Some((change.key?.as_str().to_owned(), change.state)));
    changes.collect()
}

/// The gateway may have sent a QUEUED change after the backup, so it must not become NOT_SENT, which a repeated call
/// sends again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_has_another_epoch_and_changes_in_flight_have_an_unknown_outcome() {
    let (export, _) = filled_file().await;
    let original = Directory::new();
    original.import(&export).unwrap();
    let (backup, report) = original.back_up().unwrap();
    assert_eq!(report.header.kind, FileKind::Backup { snapshot_time_us: NOON.as_micros() });
    assert_eq!(verify(&mut &*backup).unwrap().header, report.header);
    let rejected = Directory::new().import(&backup);
    assert!(matches!(rejected, Err(TransferError::IsBackup)), "{rejected:?}");

    // An export is accepted, too: its journal may have gone on as well.
    for file in [&backup, &export] {
        let directory = Directory::new();
        let restored = restore(&directory, file);
        assert_ne!(restored.epoch, report.header.epoch);
        let checked = directory.check().unwrap();
        assert_eq!((checked.findings, checked.epoch), (vec![], restored.epoch.clone()));
        // Another move, and another backup, of the journal before its first start change nothing.
        let moved = Directory::new();
        moved.import(&directory.export()).unwrap();
        let journal = moved.open();
        assert_eq!(format!("{:016x}", journal.epoch().0), restored.epoch);
        let kept = journal.kept_range().await.unwrap();
        assert_eq!(kept.last, report.header.last_position);
        assert_eq!(journal.get_kv("first".into()).await.unwrap(), kept.last.to_be_bytes());
        let before = states(&*journal).await;
        let interrupted = journal.interrupted().await.unwrap();
        assert_eq!(interrupted.len(), 3);
        for change in interrupted {
            let settled = journal.settle(change, NOON).await.unwrap().unwrap();
            assert_eq!(settled.state, ChangeState::OutcomeUnknown);
        }
        let expected = before.into_iter().map(|(key, state)| match state {
            state if state.is_in_flight() => (key, ChangeState::OutcomeUnknown),
            state => (key, state),
        });
        assert_eq!(states(&*journal).await, expected.collect::<Vec<_>>());
        journal.close().await;
    }
}

/// The loss may have been that of a DISPATCHED change, or of another change of the same devices, whose callbacks arrive now.
#[tokio::test(flavor = "multi_thread")]
async fn the_outcome_of_a_change_stays_unknown_in_a_journal_that_may_lack_its_request() {
    let original = Directory::new();
    let journal = original.open();
    fill(&*journal).await;
    journal.close().await;
    drop(journal);
    let (backup, _) = original.back_up().unwrap();
    let export = original.export();
    let move_there = |directory: &Directory| drop(directory.import(&export).unwrap());
    let accept_loss = |directory: &Directory| {
        move_there(directory);
        fs::remove_file(directory.path().join("journal.marker")).unwrap();
        sqlite::accept_loss(&directory.path(), false, &[]).unwrap().unwrap();
    };
    let restore = |directory: &Directory| drop(restore(directory, &backup));
    let ways: [&dyn Fn(&Directory); 3] = [&move_there, &restore, &accept_loss];
    for (fill_directory, may_lack_requests) in ways.into_iter().zip([false, true, true]) {
        let directory = Directory::new();
        fill_directory(&directory);
        let journal = directory.open();
        let mut settled = Vec::new();
        for change in journal.interrupted().await.unwrap() {
            settled.push(journal.settle(change, NOON).await.unwrap().unwrap().state);
        }
        settled.dedup();
        assert_eq!(settled == [ChangeState::OutcomeUnknown], may_lack_requests, "{settled:?}");
        // The device of the change "unknown".
        journal.store_callback(success_of("r-later", 2_002)).await.unwrap();
        let request = RequestId::parse("r-later").unwrap();
        let found = journal.attribute(request, None, None, NOON).await.unwrap();
        assert_eq!(matches!(found, Attribution::Unproven), may_lack_requests, "{found:?}");
        // A change that is made now gets its results.
        accept_change(&*journal, "new", "r-new", 5_000..5_001).await;
        journal.store_callback(success_of("r-new", 5_000)).await.unwrap();
        journal.close().await;
    }
}
