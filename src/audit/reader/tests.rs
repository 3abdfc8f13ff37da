use std::fs;

use super::*;

fn line(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"event\":\"call\"}}\n")
}

/// A log with two rotated files and a torn last line.
fn log() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    for (name, text) in [
        ("audit.log.0000000009", line("a") + &line("b")),
        ("audit.log.0000000010", line("b") + "torn\n" + &line("c")),
        ("audit.log", line("d") + "{\"id\":\"e\""),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    (directory, path)
}

fn id(line: AuditLine) -> String {
    match line {
        AuditLine::Record(_, record) => record["id"].as_str().unwrap().to_owned(),
        AuditLine::Torn => "torn".to_owned(),
    }
}

#[test]
fn all_files_are_read_in_order_and_a_repeated_record_occurs_once() {
    let (_directory, path) = log();
    let mut reader = AuditReader::open(&path).unwrap();
    let mut ids = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        ids.push(id(line));
    }
    assert_eq!(ids, ["a", "b", "torn", "c", "d", "torn"]);
}

#[test]
fn the_last_lines_come_from_as_many_files_as_needed() {
    let (_directory, path) = log();
    for (count, expected) in [
        (0, &[][..]),
        (1, &["d"]),
        (3, &["torn", "c", "d"]),
        (100, &["a", "b", "b", "torn", "c", "d"]),
    ] {
        let (lines, _) = AuditTail::open(&path, count).unwrap();
        assert_eq!(lines.into_iter().map(id).collect::<Vec<_>>(), expected, "{count}");
    }
}

#[test]
fn a_tail_continues_within_a_line_and_through_rotations() {
    let (directory, path) = log();
    let (_, mut tail) = AuditTail::open(&path, 0).unwrap();
    assert_eq!(tail.next_line().unwrap(), None);
    let append = |text: &str| {
        use std::io::Write as _;
        let file = File::options().create(true).append(true).open(&path);
        file.unwrap().write_all(text.as_bytes()).unwrap();
    };
    append("}\n");
    assert_eq!(tail.next_line().unwrap().map(id).as_deref(), Some("e"));
    append(&line("f"));
    for (number, next) in [(11, "g"), (12, "h")] {
        fs::rename(&path, directory.path().join(format!("audit.log.00000000{number}"))).unwrap();
        append(&line(next));
    }
    let mut ids = Vec::new();
    while let Some(line) = tail.next_line().unwrap() {
        ids.push(id(line));
    }
    assert_eq!(ids, ["f", "g", "h"]);
}

#[test]
fn a_line_without_an_end_is_read_in_bounded_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    fs::write(&path, "x".repeat(200_000) + "\n" + &line("a")).unwrap();
    let mut reader = AuditReader::open(&path).unwrap();
    let mut ids = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        ids.push(id(line));
    }
    assert_eq!((ids.len(), ids.last().unwrap().as_str()), (5, "a"));
    let (lines, _) = AuditTail::open(&path, 1).unwrap();
    assert_eq!(lines.into_iter().map(id).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_log_without_files_is_not_found() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().join("audit.log"), directory.path().join("missing/audit.log")] {
        assert_eq!(AuditReader::open(&path).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(AuditTail::open(&path, 1).err().unwrap().kind(), io::ErrorKind::NotFound);
    }
}
