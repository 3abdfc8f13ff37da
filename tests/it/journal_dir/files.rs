//! Access to the journal's files and to its directory.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

use super::{fill_journal, journal, set_journal, start};
use crate::support::{
    env::TestEnv,
    gateway::{GatewayExit, Setup, TestDir},
    thingspace::FakeThingSpace,
};

/// Returns the names and modes of files that other users can read or write.
fn open_files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("an entry").permissions().mode();
        if mode & 0o077 != 0 {
            names.push(format!("{} {mode:o}", entry.file_name().display()));
        }
    }
    names
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_files_are_accessible_to_the_owner_only() {
    let directory = TestDir::new();
    let journal = journal(&directory);
    // As a Kubernetes volume with an fsGroup.
    fs::create_dir(&journal).expect("a directory");
    set_mode(&journal, 0o2775);
    let mut env = TestEnv::start_in(directory, set_journal).await;
    fill_journal(&env).await;
    assert_eq!(open_files(&journal), Vec::<String>::new());
    env.gateway.kill().await;

    for entry in fs::read_dir(&journal).expect("a directory") {
        set_mode(&entry.expect("an entry").path(), 0o664);
    }
    env.start_again().await;
    assert_eq!(open_files(&journal), Vec::<String>::new());
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    assert_eq!(open_files(&journal), Vec::<String>::new());
    let mode = fs::metadata(&journal).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o2775, "the directory is left as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_stale_socket_is_replaced_by_the_admin_socket() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let socket = directory.join("admin.sock");
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let setup = set_journal(setup, &directory).set("admin.socket", socket.to_str().expect("text"));

    fs::write(&socket, "precious").expect("a file");
    let GatewayExit { code, log } = setup.start_error().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("admin.socket") && log.contains("not a socket"), "{log}");
    assert_eq!(fs::read(&socket).expect("it is there"), b"precious");
    fs::remove_file(&socket).expect("it is there");

    let listener = UnixListener::bind(&socket).expect("a socket");
    let GatewayExit { code, log } = setup.start_error().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("another process listens on it"), "{log}");
    drop(listener);

    // The socket of a dead process has no listener.
    let mut gateway = setup.start().await;
    let made = fs::symlink_metadata(&socket).expect("it is there");
    assert!(made.file_type().is_socket());
    assert_eq!(gateway.terminate().await.code, Some(0));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_rejected_without_the_lock_file_and_through_hard_links() {
    let mut env = start().await;
    let journal = journal(&env.directory);
    fill_journal(&env).await;

    fs::remove_file(journal.join("journal.lock")).expect("it is there");
    let GatewayExit { code, log } = env.setup.start_error().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("another process is using it"), "{log}");

    let links = env.directory.join("links");
    fs::create_dir(&links).expect("a directory");
    for name in ["journal.db", "journal.db-wal", "journal.marker"] {
        fs::hard_link(journal.join(name), links.join(name)).expect("a link");
    }
    let linked = env.setup.clone().set("journal.dir", links.to_str().expect("text"));
    let GatewayExit { code, log } = linked.start_error().await;
    assert_eq!(code, Some(1));
    assert!(log.contains("another process is using it"), "{log}");
    assert_eq!(env.gateway.terminate().await.code, Some(0));
}
