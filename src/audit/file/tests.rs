use std::os::unix::fs::symlink;

use super::*;

fn open(path: &Path) -> LogFile {
    LogFile::open(path.to_owned(), 100, 3).unwrap()
}

fn append(log: &mut LogFile, text: &str) {
    log.prepare(text.len()).unwrap();
    log.append(text.as_bytes()).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn directory_with_log() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    (directory, path)
}

#[test]
fn the_file_and_a_new_directory_are_private() {
    let (directory, _) = directory_with_log();
    let path = directory.path().join("new/audit.log");
    drop(open(&path));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(&path));
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_full_file_is_rotated_and_the_oldest_is_deleted_beyond_the_limit() {
    let (directory, path) = directory_with_log();
    let mut log = open(&path);
    for number in 0..5 {
        append(&mut log, &format!("{number}{}\n", "x".repeat(78)));
    }
    let expected = ["audit.log", "audit.log.0000000003", "audit.log.0000000004"];
    assert_eq!(names(directory.path()), expected);
    let first = |path: &Path| fs::read_to_string(path).unwrap().chars().next().unwrap();
    let rotated = rotated_files(&path).unwrap();
    assert_eq!((first(&rotated[0].path), first(&rotated[1].path), first(&path)), ('2', '3', '4'));
}

#[test]
fn numbers_increase_after_a_restart_and_other_files_are_left_alone() {
    let (directory, path) = directory_with_log();
    for name in ["audit.log.1", "audit.log.0000000007", "audit.log.000000000x", "other"] {
        fs::write(directory.path().join(name), "x\n").unwrap();
    }
    let mut log = open(&path);
    append(&mut log, &"x".repeat(99));
    log.append(b"\n").unwrap();
    append(&mut log, "y\n");
    assert!(names(directory.path()).contains(&"audit.log.0000000008".to_owned()));
    assert_eq!(rotated_files(&path).unwrap().len(), 2);
    assert!(directory.path().join("audit.log.1").exists());
}

#[test]
fn a_file_that_another_program_moves_away_is_opened_again() {
    let (directory, path) = directory_with_log();
    let mut log = open(&path);
    append(&mut log, "a\n");
    let moved = directory.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    append(&mut log, "b\n");
    fs::remove_file(&path).unwrap();
    append(&mut log, "c\n");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "a\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
}

#[test]
fn an_incomplete_last_line_is_detected_at_the_start_and_is_not_rotated_away() {
    let (directory, path) = directory_with_log();
    fs::write(&path, "x".repeat(99)).unwrap();
    let mut log = open(&path);
    assert!(log.is_torn());
    append(&mut log, "\nrepaired\n");
    assert!(!log.is_torn());
    assert_eq!(names(directory.path()), ["audit.log"]);
}

#[test]
fn a_file_of_another_process_a_link_and_a_pipe_are_rejected() {
    let (directory, path) = directory_with_log();
    let _first = open(&path);
    let error = LogFile::open(path.clone(), 100, 3).err().unwrap();
    assert_eq!(error.to_string(), "another process writes to it");
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(LogFile::open(link, 100, 3).is_err());
    assert!(LogFile::open(directory.path().to_owned(), 100, 3).is_err());
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let error = LogFile::open(pipe, 100, 3).err().unwrap();
    assert_eq!(error.to_string(), "it is not a regular file");
}
