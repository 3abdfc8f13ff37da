//! A kill and then a power loss: data that the next process reads from the page cache is not yet on the
//! disk.

use serde_json::json;

use super::{
    checker::{Fact, JOURNAL, TimedFact},
    disk::UnsyncedData,
    power_losses::{PowerLoss, check_disks},
    trace::DiskRecorder,
};
use crate::support::{
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    http::{http_client, post},
    requests::{esim_callback, iccid},
};

#[tokio::test(flavor = "multi_thread")]
async fn data_left_unsynced_by_a_kill_is_synced_before_a_duplicate_is_acknowledged() {
    let directory = TestDir::new();
    let recorder = DiskRecorder::new(directory.path());
    let journal = recorder.root().join(JOURNAL);
    let setup =
        Setup::serve(UNREACHABLE_URL, &directory).set("journal.dir", journal.to_str().unwrap());
    let mut gateway = recorder.watch(&setup, 0).start().await;
    let code = gateway.terminate().await.code;
    assert_eq!(code, Some(0));

    // Killed between the write of a callback and its sync. The start makes three syncs: of the log's header, of the
    // number of the process, and of the stored clock time.
    let setup = recorder.watch(&setup, 1).env("TEST_KILL_AT_SYNC", "-wal 4");
    let mut gateway = setup.start().await;
    let url = gateway.callback_url("DeviceProfileService");
    let client = http_client();
    let mut number = 0;
    let callback = loop {
        let callback = esim_callback("r", number).to_string();
        if client.post(&url).body(callback.clone()).send().await.is_err() {
            break callback;
        }
        number += 1;
        assert!(number < 2, "the process is not killed");
    };
    gateway.wait().await;

    let mut gateway = recorder.watch(&setup, 2).start().await;
    let url = gateway.callback_url("DeviceProfileService");
    let again = post(&url, callback).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    let acknowledged_at = recorder.now(2);
    gateway.kill().await;

    let trace = recorder.load_trace(3, UNREACHABLE_URL);
    let after_ops = trace.ops_before(acknowledged_at);
    let fact = Fact::Stored { request: "r".into(), iccid: iccid(number) };
    let timed = TimedFact { from: after_ops, until: usize::MAX, fact };
    let cut = PowerLoss { after_ops, unsynced: UnsyncedData::Lost };
    let violations = check_disks(&trace, &[timed], &[cut]).await.violations;
    assert!(violations.is_empty(), "{violations:?}");
}
