//! A system clock that is wrong, at a start and while the gateway runs.

use thingspace_gateway::proto::{Change, ChangeState};
use tokio::time::timeout;

use crate::support::{
    disk::FaultyDisk,
    gateway::{Client, Gateway, Setup, TEST_TIMEOUT, TestDir},
    requests::{
        WatchTranscript, change_esim, deliver, esim, esim_callback, get_by_key, until_caught_up,
        watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

/// More calls than the background jobs need to have had their turn.
const CALLS: usize = 300;

/// One change that is finished, one without an answer, and one whose results are missing.
async fn changes(gateway: &Gateway, thingspace: &FakeThingSpace) -> Vec<Change> {
    let mut client = gateway.client().await;
    let finished = change_esim(&mut client, esim("finished", [1])).await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(&finished.request_ids[0], 1)).await;
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    let unknown = change_esim(&mut client, esim("unknown", [2])).await;
    assert_eq!(unknown.state(), ChangeState::OutcomeUnknown);
    let accepted = change_esim(&mut client, esim("accepted", [3])).await;
    vec![finished, unknown, accepted]
}

/// Calls again by every key, many times.
async fn repeat(client: &mut Client) {
    for _ in 0..CALLS {
        for (key, number) in [("finished", 1), ("unknown", 2), ("accepted", 3)] {
            change_esim(client, esim(key, [number])).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_clock_that_is_401_days_ahead_sends_no_key_again_and_closes_nothing() {
    let directory = TestDir::new();
    let disk = FaultyDisk::new(&directory);
    let thingspace = FakeThingSpace::start().await;
    let setup = disk.attach(Setup::serve(&thingspace.base_url(), &directory));
    let gateway = setup.start().await;
    let made = changes(&gateway, &thingspace).await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    for days in [401, -401, 0] {
        disk.set_clock_ahead(days);
        let gateway = setup.start().await;
        let mut client = gateway.client().await;
        repeat(&mut client).await;
        assert_eq!(thingspace.posts(), made.len(), "{days} days ahead");
        let unknown = get_by_key(&mut client, "unknown").await.unwrap();
        assert_eq!(unknown.state(), ChangeState::OutcomeUnknown);
        let story = WatchTranscript::record(
            &mut client,
            until_caught_up(watch_request(&made[0].request_ids[0])),
        )
        .await;
        assert_eq!(story.results().len(), 1);
        let (code, log) = gateway.terminate().await;
        assert_eq!(code, Some(0));
        let warned = log.contains("the system clock is ahead of the time stored in the journal");
        // The corrected clock is as far ahead of the last stored time.
        assert_eq!(warned, days >= 0, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_jump_at_runtime_removes_and_closes_nothing() {
    let directory = TestDir::new();
    let disk = FaultyDisk::new(&directory);
    let thingspace = FakeThingSpace::start().await;
    // Looked at every second.
    let setup = disk
        .attach(Setup::serve(&thingspace.base_url(), &directory))
        .set("changes.overdue_after", "1s");
    let gateway = setup.start().await;
    let made = changes(&gateway, &thingspace).await;
    let mut client = gateway.client().await;
    let overdue = async {
        let expected = ChangeState::Overdue;
        while get_by_key(&mut client, "accepted").await.unwrap().state() != expected {}
    };
    timeout(TEST_TIMEOUT, overdue).await.expect("it is overdue");

    disk.set_clock_ahead(401);
    // A change that is made now is overdue by the deadlines' next look.
    let mut client = gateway.client().await;
    change_esim(&mut client, esim("later", [4])).await;
    let overdue = async {
        let expected = ChangeState::Overdue;
        while get_by_key(&mut client, "later").await.unwrap().state() != expected {}
    };
    timeout(TEST_TIMEOUT, overdue).await.expect("it is overdue");
    repeat(&mut client).await;
    assert_eq!(thingspace.posts(), made.len() + 1);
    let state = async |key: &str| {
        let mut client = client.clone();
        get_by_key(&mut client, key).await.unwrap().state()
    };
    assert_eq!(state("accepted").await, ChangeState::Overdue);
    assert_eq!(state("unknown").await, ChangeState::OutcomeUnknown);
    assert_eq!(state("finished").await, ChangeState::Finished);
}
