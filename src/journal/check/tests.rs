use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::*;
use crate::journal::{
    conformance::every_row::fill,
    sql::Type,
    transfer::{
        Purpose, TABLES, TransferError,
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

/// Returns a closed journal with rows of every kind, and the path of its database.
async fn filled_directory() -> (Directory, PathBuf) {
    let directory = Directory::new();
    let journal = directory.open();
    fill(&*journal).await;
    journal.close().await;
    drop(journal);
    let path = directory.path().join("journal.db");
    (directory, path)
}

/// Modifies a database, and returns the number of modified rows.
fn modify(path: &Path, sql: &str) -> rusqlite::Result<usize> {
    Connection::open(path).unwrap().execute(sql, [])
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_together_are_findings() {
    let (directory, path) = filled_directory().await;
    let sound = directory.check().unwrap();
    assert_eq!(sound.findings, vec![]);
    assert!(sound.rows["event"] > 40 && sound.rows["change"] > 10);
    for (damage, word) in DAMAGE {
        let before = std::fs::read(&path).unwrap();
        assert!(modify(&path, damage).unwrap() > 0, "{damage}");
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
    let (directory, path) = filled_directory().await;
    modify(&path, "DELETE FROM account").unwrap();
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

/// Values that SQLite returns with another type after the flip of a bit, and that no integrity check of SQLite finds. A
/// backup converts a text and bytes to each other, which changes no byte.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_other_types_are_findings_and_backups_convert_or_name_them() {
    let (directory, path) = filled_directory().await;
    let (file, _) = directory.back_up().unwrap();
    let before = std::fs::read(&path).unwrap();
    for table in TABLES {
        for (column, kind) in table.columns {
            let (name, converted) = (
                table.name,
                match kind {
                    Type::Int => "'x'",
                    Type::Text => "CAST(value AS BLOB)",
                    Type::Bytes => "CAST(value AS TEXT)",
                },
            );
            let converted = converted.replace("value", column);
            let sql = format!(
                "UPDATE OR IGNORE {name} SET {column} = {converted} WHERE {column} IS NOT NULL"
            );
            match modify(&path, &sql) {
                Ok(modified) => assert!(modified > 0, "{sql}"),
                // SQLite itself ensures the type of a row number.
                Err(_) => {
                    assert!(*kind == Type::Int && table.key == 1, "{sql}");
                    continue;
                }
            }
            let findings = directory.check().unwrap().findings;
            let text = format!("table {name}, ");
            let is_found = |finding: &Finding| {
                finding.problem.starts_with(&text) && finding.problem.contains(*column)
            };
            // Without its name, no value of the table meta is found.
            let is_unknown = name == "meta" && *column == "name" && !findings.is_empty();
            assert!(is_unknown || findings.iter().any(is_found), "{sql}: {findings:?}");
            let backup = directory.back_up().map(|(backup, _)| backup);
            match backup {
                // The identity of the journal, and values that a copy does not have.
                backup if name == "meta" || *column == "owner" => drop(backup),
                Ok(backup) => assert!(*kind != Type::Int && backup == file, "{sql}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(*kind == Type::Int && error.starts_with(&text), "{sql}: {error}");
                    assert!(error.contains("journal check"), "{error}");
                }
            }
            std::fs::write(&path, &before).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_goes_on_after_damage_of_any_kind() {
    let (directory, path) = filled_directory().await;
    std::fs::remove_file(directory.path().join("journal.marker")).unwrap();
    modify(&path, "UPDATE change SET state = 6 WHERE state = 5").unwrap();
    let before = std::fs::read(&path).unwrap();
    let first_event = "WHERE position = (SELECT min(position) FROM event)";
    let first_change = "WHERE id = (SELECT max(id) FROM change WHERE key IS NOT NULL)";
    let is_meta = |name: &str| format!("WHERE name = '{name}'");
    let damages = [
        ("event SET body = CAST(body AS TEXT)", first_event.into(), ": the column body"),
        ("event SET body = CAST(x'ff' AS TEXT)", first_event.into(), ": the column body"),
        ("event SET body = 1.5", first_event.into(), "cannot be decoded"),
        ("change SET key = CAST(x'ff' AS TEXT)", first_change.into(), ": the column key"),
        ("meta SET value = CAST(value AS TEXT)", is_meta("epoch"), "the identity of the journal"),
        ("meta SET value = x'00'", is_meta("fingerprint_key"), "the identity of the journal"),
        ("meta SET value = 'x'", is_meta("trimmed_position"), "the events cannot be checked"),
    ];
    for (damage, condition, word) in damages {
        let damage = format!("UPDATE {damage} {condition}");
        assert!(modify(&path, &damage).unwrap() > 0, "{damage}");
        let findings = directory.check().unwrap().findings;
        // Without the epoch and the positions, the marker cannot be compared.
        let of_marker =
            ["journal.marker is missing", "the position of the journal cannot be checked"];
        for expected in [&of_marker[..], &[word], &["is stored twice"]] {
            let is_found = findings
                .iter()
                .any(|finding| expected.iter().any(|text| finding.problem.contains(text)));
            assert!(is_found, "{damage}: {expected:?}: {findings:?}");
        }
        std::fs::write(&path, &before).unwrap();
    }
}

/// The error, such as one of the time limit, is a finding then.
#[test]
fn an_error_keeps_the_findings_before_it() {
    let failed = |findings: &[&str]| {
        let mut check = Check::default();
        check.run("the first part", |report| {
            findings.iter().for_each(|finding| report.add((*finding).into()));
            Ok(())
        });
        check.run("the second part", |_| Err(TransferError::Database("interrupted".into())));
        check.run("the third part", |_| panic!("the check has ended"));
        check.finish(|_| TransferError::Database("too slow".into()))
    };
    assert!(matches!(failed(&[]), Err(TransferError::Database(text)) if text == "too slow"));
    let findings = failed(&["a change is wrong"]).unwrap().findings;
    let problems: Vec<_> = findings.iter().map(|finding| finding.problem.as_str()).collect();
    assert_eq!(problems, ["a change is wrong", "the check is incomplete: too slow"]);
}
