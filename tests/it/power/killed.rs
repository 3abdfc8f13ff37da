//! A kill, then a power loss: what the next process finds in the page cache is not yet on the disk.

use serde_json::json;

use super::{
    PowerLoss, check_disks,
    disk::UnsyncedData,
    judge::{Fact, JOURNAL, TimedFact},
    trace::DiskRecorder,
};
use crate::support::{
    gateway::{Setup, TestDir},
    requests::{esim_callback, iccid, post},
};

/// No process listens there.
const BASE_URL: &str = "http://127.0.0.1:9/api";

#[tokio::test(flavor = "multi_thread")]
async fn data_left_unsynced_by_a_kill_is_synced_before_a_duplicate_is_acknowledged() {
    let directory = TestDir::new();
    let recorder = DiskRecorder::new(directory.path());
    let journal = recorder.root().join(JOURNAL);
    let setup = Setup::serve(BASE_URL, &directory).set("journal.dir", journal.to_str().unwrap());
    let gateway = recorder.watch(&setup, 0).start().await;
    let (code, _log) = gateway.terminate().await;
    assert_eq!(code, Some(0));

    // Killed between the write of a callback and its sync. The syncs before it are of the log's header and
    // of the clock's time at the start.
    let dies = recorder
        .watch(&setup, 1)
        .env("DISK_TRACE_DIE_AT_SYNC", "-wal 3");
    let gateway = dies.start().await;
    let url = gateway.callback_url("DeviceProfileService");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut number = 0;
    let callback = loop {
        let callback = esim_callback("r", number).to_string();
        if client
            .post(&url)
            .body(callback.clone())
            .send()
            .await
            .is_err()
        {
            break callback;
        }
        number += 1;
        assert!(number < 2, "it does not die");
    };
    gateway.wait().await;

    let gateway = recorder.watch(&setup, 2).start().await;
    let url = gateway.callback_url("DeviceProfileService");
    let again = post(&url, callback).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    let acknowledged_at = recorder.now(2);
    gateway.kill().await;

    let trace = recorder.load_trace(3, BASE_URL);
    let after_ops = trace.ops_before(acknowledged_at);
    let fact = Fact::Stored {
        request: "r".into(),
        iccid: iccid(number),
    };
    let held = TimedFact {
        from: after_ops,
        until: usize::MAX,
        fact,
    };
    let cut = PowerLoss {
        after_ops,
        unsynced: UnsyncedData::Gone,
    };
    let (_, wrong) = check_disks(&trace, &[held], &[cut]).await;
    assert!(wrong.is_empty(), "{wrong:?}");
}
