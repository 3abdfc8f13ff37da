//! The journal's directory: what is refused at a start, and who may use it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thingspace_gateway::proto::Change;

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    requests::{
        WatchTranscript, change_esim, deliver, esim, esim_callback, get_by_key, until_caught_up,
        watch_request,
    },
    thingspace::FakeThingSpace,
};

mod damage;
mod files;
mod origin;

/// Changes that a journal in use has.
const CHANGES: usize = 3;

/// A directory below one that may be copied.
fn journal(directory: &TestDir) -> PathBuf {
    directory.join("journal")
}

fn setup(thingspace: &FakeThingSpace, directory: &TestDir) -> Setup {
    Setup::serve(&thingspace.base_url(), directory)
        .set("journal.dir", journal(directory).to_str().expect("text"))
}

/// Makes some changes and delivers their results, so that all is in the write-ahead log.
async fn fill_journal(gateway: &Gateway) -> Vec<Change> {
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    let mut made = Vec::new();
    for number in 0..CHANGES {
        let change = change_esim(&mut client, esim(&format!("key {number}"), [number])).await;
        deliver(&url, &esim_callback(&change.request_ids[0], number)).await;
        made.push(change);
    }
    made
}

/// Every key is known and sends nothing, every result is there.
async fn assert_journal_complete(
    client: &mut Client,
    made: &[Change],
    thingspace: &FakeThingSpace,
) {
    let posts = thingspace.posts();
    for (number, change) in made.iter().enumerate() {
        let key = format!("key {number}");
        let again = change_esim(client, esim(&key, [number])).await;
        assert_eq!(again.change_id, change.change_id);
        assert_eq!(get_by_key(client, &key).await.unwrap(), again);
        let story = WatchTranscript::record(
            client,
            until_caught_up(watch_request(&change.request_ids[0])),
        )
        .await;
        assert_eq!(story.results().len(), 1);
    }
    assert_eq!(thingspace.posts(), posts);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        // The shared memory and sockets are no part of a journal.
        let is_file = entry.file_type().expect("a type").is_file();
        if is_file && !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}
