//! Kills while callbacks arrive and watches are open.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use thingspace_gateway::proto::{self, WatchRequestRequest};

use crate::{
    guarantees::{self, History, MessageKind, Recording, StreamEnd},
    support::{
        gateway::{Gateway, Setup, TestDir, UNREACHABLE_URL},
        history::{WatchRecorder, reference},
        requests::{iccid, send_all},
        wait::in_time,
    },
};

const REQUEST: &str = "9e3dafa4-0aea-4105-b1f6-1a561ece7740";
const CALLBACKS: usize = 3_000;
const KILLS: usize = 20;

fn watch(token: String) -> WatchRequestRequest {
    WatchRequestRequest {
        request_id: REQUEST.into(),
        resume_token: token,
        until: proto::Until::Finished.into(),
        ..WatchRequestRequest::default()
    }
}

/// Records a watch until the gateway is killed.
async fn follow(gateway: &Gateway, token: String) -> tokio::task::JoinHandle<Recording> {
    let mut client = gateway.client().await;
    let mut recorder = WatchRecorder::open(&mut client, watch(token)).await;
    tokio::spawn(async move {
        while recorder.next().await.is_some() {}
        recorder.cut()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_callback_survives_each_kill_and_every_resume_has_no_gap() {
    let directory = TestDir::new();
    let setup = Setup::serve(UNREACHABLE_URL, &directory);
    let mut acknowledged: HashSet<usize> = HashSet::new();
    let mut recordings: Vec<Recording> = Vec::new();
    let mut resume_with = String::new();

    for round in 0..=KILLS {
        let mut gateway = setup.start().await;
        let following = follow(&gateway, resume_with.clone()).await;
        let missing: Vec<usize> =
            (0..CALLBACKS).filter(|number| !acknowledged.contains(number)).collect();
        let counter = Arc::new(AtomicUsize::new(0));
        let url = gateway.callback_url("DeviceProfileService");
        let counted = Arc::clone(&counter);
        let sending =
            tokio::spawn(async move { send_all(&url, REQUEST, missing, 8, counted).await });
        if round < KILLS {
            // The kill follows a share of the callbacks.
            let share = CALLBACKS / KILLS * (round + 1) / (round + 2);
            in_time(async {
                while counter.load(Ordering::Relaxed) < share.min(CALLBACKS - acknowledged.len()) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            gateway.kill().await;
            acknowledged.extend(sending.await.expect("a sender"));
            let recording = following.await.expect("a recording");
            // The next watch resumes with a token from the end or the middle.
            let at = recording.messages.len().saturating_sub(1) / (1 + round % 3);
            if let Some(message) = recording.messages.get(at) {
                resume_with.clone_from(&message.token);
            }
            recordings.push(recording);
        } else {
            acknowledged.extend(sending.await.expect("a sender"));
            let mut client = gateway.client().await;
            let whole = reference(&mut client, watch(String::new())).await;
            judge(&whole, &recordings, &acknowledged);
            resume_everywhere(&gateway, &whole).await;
            let code = gateway.terminate().await.code;
            assert_eq!(code, Some(0));
            let last = following.await.expect("a recording");
            recordings.push(last);
            judge(&whole, &recordings, &acknowledged);
        }
    }
    assert_eq!(acknowledged.len(), CALLBACKS);
}

/// Checks that each acknowledged callback is delivered once, and the seven guarantees.
fn judge(whole: &Recording, recordings: &[Recording], acknowledged: &HashSet<usize>) {
    let history = History::new(&whole.messages, recordings);
    guarantees::check(&history).unwrap();
    let events: Vec<&String> = whole
        .messages
        .iter()
        .filter_map(|message| match &message.kind {
            MessageKind::Event(event) => Some(event),
            _ => None,
        })
        .collect();
    let mut stored: Vec<String> = events
        .iter()
        .map(|event| {
            event.split('"').find(|part| part.starts_with("8914")).expect("an ICCID").to_owned()
        })
        .collect();
    let count = stored.len();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), count, "no callback twice");
    for number in acknowledged {
        assert!(stored.binary_search(&iccid(*number)).is_ok(), "callback {number} is lost");
    }
}

/// Checks that any token resumes with the next event.
async fn resume_everywhere(gateway: &Gateway, whole: &Recording) {
    let mut client = gateway.client().await;
    let mut resumed = Vec::new();
    for message in whole.messages.iter().step_by(97) {
        let request = WatchRequestRequest {
            until: proto::Until::CaughtUp.into(),
            ..watch(message.token.clone())
        };
        let recording = WatchRecorder::open(&mut client, request).await.finish().await;
        assert_eq!(recording.end, StreamEnd::Ok);
        let last = recording.messages.last().expect("a bookmark");
        assert_eq!(last.token, whole.messages.last().expect("a bookmark").token);
        resumed.push(recording);
    }
    let history = History::new(&whole.messages, &resumed);
    guarantees::check(&history).unwrap();
}
