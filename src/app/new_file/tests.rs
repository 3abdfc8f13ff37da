use std::{
    env,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

#[test]
fn a_path_that_cannot_become_a_file_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |name: &str| {
        let path = format!("{}/{name}", directory.path().display());
        let error = NewFile::create(Path::new(&path)).map(drop).unwrap_err();
        (error.kind(), error.to_string())
    };
    for name in ["", "new/", "new/.", ".", ".."] {
        let (kind, text) = refused(name);
        assert_eq!(kind, ErrorKind::IsADirectory, "{name}: {text}");
    }
    fs::write(directory.path().join("file"), "").unwrap();
    let (kind, text) = refused("file");
    assert!(kind == ErrorKind::AlreadyExists && text.contains("another name"), "{text}");
    let (kind, text) = refused("missing/new");
    let names_directory = text.contains(&format!("{}/missing", directory.path().display()));
    assert!(kind == ErrorKind::NotFound && names_directory, "{text}");
    let (kind, text) = refused("file/new");
    assert_eq!(kind, ErrorKind::NotADirectory, "{text}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_file_appears_only_when_it_is_complete_and_replaces_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    let names = || fs::read_dir(directory.path()).unwrap().count();
    let create_hidden = || {
        let content = Content::create_hidden(&path, directory.path()).unwrap();
        NewFile { path: path.clone(), parent: directory.path().to_owned(), content }
    };
    for create in [&(|| NewFile::create(&path).unwrap()) as &dyn Fn() -> NewFile, &create_hidden] {
        drop(create());
        assert_eq!(names(), 0, "nothing is left of an incomplete file");
        let (mut first, second) = (create(), create());
        first.write_all(b"content").unwrap();
        assert_eq!(first.device().unwrap(), directory.path().metadata().unwrap().dev());
        assert!(!path.exists());
        first.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        let refused = second.finish().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        let refused = NewFile::create(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(), 1);
        fs::remove_file(&path).unwrap();
    }
}

/// The signal ends a process of its own, which runs only this test.
#[test]
fn a_signal_removes_a_file_that_has_another_name() {
    const DIRECTORY: &str = "TEST_NEW_FILE_DIRECTORY";
    const READY: &str = "the file exists";
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = Path::new(&directory);
        let _content = Content::create_hidden(&directory.join("backup"), directory).unwrap();
        println!("{READY}");
        loop {
            thread::park();
        }
    }
    let name = "app::new_file::tests::a_signal_removes_a_file_that_has_another_name";
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(READY)));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + signal.as_raw()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
