use rusqlite::Connection;

use super::*;
use crate::journal::{
    conformance::every_row::fill,
    transfer::{
        Purpose, TransferError,
        tests::{Directory, filled_file},
        verify,
    },
};

/// Damage that the check finds, and a word of the finding.
const DAMAGE: [(&str, &str); 18] = [
    ("DELETE FROM event WHERE position = (SELECT max(position) - 1 FROM event)", "are missing"),
    ("DELETE FROM account", "belong to no account"),
    ("DELETE FROM event WHERE position = (SELECT max(id) FROM change)", "have no first event"),
    ("UPDATE event SET body = x'ff' WHERE kind = 0", "cannot be decoded"),
    ("UPDATE change SET record = x'ff' WHERE state = 5", "cannot be decoded"),
    ("UPDATE change SET state = 6 WHERE state = 5", "is stored twice"),
    ("UPDATE change SET device_states = '[]' WHERE device_states <> '[]'", "counts"),
    ("DELETE FROM device_state WHERE precedence IS NOT NULL", "counts"),
    ("DELETE FROM request WHERE change IS NOT NULL", "that is not theirs"),
    ("UPDATE callback_body SET position = position + 1000000", "belong to no result"),
    ("UPDATE device_state SET decided_by = 1 WHERE decided_by IS NOT NULL", "no deciding result"),
    ("UPDATE device_key SET change = change + 1000000", "belong to no change"),
    ("UPDATE change SET devices = x'ff' WHERE devices IS NOT NULL", "the devices of the change"),
    ("UPDATE device_block SET devices = x'ff'", "the block of devices"),
    ("UPDATE event SET link = x'ff' WHERE link IS NOT NULL", "the link of the result"),
    ("UPDATE device_state SET digests = x'ff'", "the digests of the device"),
    ("UPDATE forward_queue SET service = ''", "the callback to forward"),
    ("UPDATE quarantine SET account = 'x' WHERE account IS NOT NULL", "the quarantined callback"),
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_together_are_findings() {
    let directory = Directory::new();
    let journal = directory.open();
    fill(&*journal).await;
    journal.close().await;
    drop(journal);
    let sound = directory.check().unwrap();
    assert_eq!(sound.findings, vec![]);
    assert!(sound.rows["event"] > 40 && sound.rows["change"] > 10);
    let path = directory.path().join("journal.db");
    for (damage, word) in DAMAGE {
        let before = std::fs::read(&path).unwrap();
        let db = Connection::open(&path).unwrap();
        assert!(db.execute(damage, []).unwrap() > 0, "{damage}");
        drop(db);
        let findings = directory.check().unwrap().findings;
        let is_found = findings.iter().any(|finding| finding.problem.contains(word));
        assert!(is_found, "{damage}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.remedy == RESTORE_REMEDY));
        std::fs::write(&path, before).unwrap();
    }
    assert_eq!(directory.check().unwrap().findings, vec![]);
}

/// The file is as it was written, and its journal was not sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_damaged_journal_is_intact_and_restored_only_on_demand() {
    let directory = Directory::new();
    let journal = directory.open();
    fill(&*journal).await;
    journal.close().await;
    drop(journal);
    let db = Connection::open(directory.path().join("journal.db")).unwrap();
    db.execute("DELETE FROM account", []).unwrap();
    drop(db);
    let (file, _) = directory.back_up().unwrap();
    verify(&mut &*file).unwrap();
    let restored = Directory::new();
    let restore = |allow_unsound| {
        restored.import_for(Purpose::Restore { updates: &[], allow_unsound }, &file)
    };
    let refused = restore(false);
    assert!(
        matches!(&refused, Err(TransferError::Unsound(text)) if text.contains("account")),
        "{refused:?}"
    );
    assert!(matches!(restored.check(), Err(TransferError::AwaitsImport)));
    restore(true).unwrap();
    assert!(!restored.check().unwrap().findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_and_a_database_behind_its_marker_are_findings() {
    let (file, _) = filled_file().await;
    let directory = Directory::new();
    directory.import(&file).unwrap();
    let path = directory.path().join("journal.db");
    let content = std::fs::read(&path).unwrap();
    for page in [0, 5, content.len() / 4096 - 1] {
        let mut damaged = content.clone();
        damaged[page * 4096..][..4096].fill(0xa5);
        std::fs::write(&path, damaged).unwrap();
        let checked = directory.check().unwrap();
        assert!(!checked.findings.is_empty(), "page {page}");
    }
    let old = Directory::new();
    old.open().close().await;
    let empty = std::fs::read(old.path().join("journal.db")).unwrap();
    std::fs::write(&path, empty).unwrap();
    let findings = directory.check().unwrap().findings;
    assert!(findings[0].problem.contains("is not the database"), "{findings:?}");
    std::fs::remove_file(&path).unwrap();
    let findings = directory.check().unwrap().findings;
    assert!(findings[0].problem.contains("journal.db is missing"), "{findings:?}");
}
