//! Clients that watch the account over all restarts, and the checks of their streams.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use thingspace_gateway::proto::{Until, watch_request_response::Event};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{client_record::ClientRecord, clients::connect, deployment::Addresses};
use crate::{
    guarantees::{self, History, MessageKind, Recording, StreamEnd},
    support::{
        history::WatchRecorder,
        requests::{ACCOUNT, WatchCall as _, watch_account},
        wait::TEST_TIMEOUT,
    },
};

/// The last message of a stream, before a client closes the stream and resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastMessage {
    /// `opened`: the stream has delivered no event.
    Opened,
    /// The result of a device.
    Result,
    /// The bookmark at the end of a stream with UNTIL_CAUGHT_UP.
    Bookmark,
    /// Any message: only faults end the stream.
    Any,
}

pub const CLIENTS: [LastMessage; 4] =
    [LastMessage::Opened, LastMessage::Result, LastMessage::Bookmark, LastMessage::Any];

/// Maximum number of messages of a stream that its client closes.
const MAX_MESSAGES: usize = 300;
/// Pause between two streams of a client.
const PAUSE: Duration = Duration::from_millis(200);

/// The observations of the account's clients.
#[derive(Default)]
pub struct AccountRecord {
    /// The consecutive streams of each client. Each resumes with the last token of the one before.
    pub clients: Vec<Vec<Recording>>,
    /// One stream of all events, recorded after the run.
    pub whole: Recording,
}

/// Watches the account with one client of each kind until `over` is true, and then to the last event.
pub async fn follow_account(
    gateway: &Addresses,
    over: &watch::Receiver<bool>,
    seed: u64,
) -> Vec<Vec<Recording>> {
    let clients = CLIENTS.map(|last| follow_as(last, gateway.clone(), over.clone(), seed));
    join_all(clients).await
}

async fn follow_as(
    last: LastMessage,
    mut gateway: Addresses,
    mut over: watch::Receiver<bool>,
    seed: u64,
) -> Vec<Recording> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut recordings = Vec::new();
    let mut token = String::new();
    loop {
        let is_over = *over.borrow();
        // A client that leaves after `opened` reads every other stream, so that it makes progress.
        let leaves_after_opened = last == LastMessage::Opened && random.bool();
        let limit = if leaves_after_opened { 1 } else { random.usize(2..MAX_MESSAGES) };
        let is_caught_up = is_over || last == LastMessage::Bookmark;
        let until = if is_caught_up { Until::CaughtUp } else { Until::Unspecified };
        let mut client = connect(&mut gateway).await;
        let request = watch_account(ACCOUNT).resume(&token).until(until);
        let mut recorder = WatchRecorder::open(&mut client, request).await;
        let mut messages = 0;
        loop {
            let event = tokio::select! {
                event = recorder.next() => event,
                _ = over.wait_for(|over| *over), if !is_over => break,
            };
            let Some(event) = event else { break };
            messages += 1;
            let leaves = match last {
                LastMessage::Opened => messages >= limit,
                LastMessage::Result => messages >= limit && matches!(event, Event::DeviceResult(_)),
                LastMessage::Bookmark | LastMessage::Any => false,
            };
            if leaves && !is_over {
                break;
            }
        }
        token = recorder.token();
        let recording = recorder.cut();
        let has_caught_up = recording.end == StreamEnd::Ok;
        // A gateway that is being killed rejects nothing, and sends nothing.
        if !recording.messages.is_empty() || is_rejection(&recording.end) {
            recordings.push(recording);
        }
        if is_over && has_caught_up {
            return recordings;
        }
        sleep(PAUSE).await;
    }
}

/// True for an error other than a full disk.
fn is_rejection(end: &StreamEnd) -> bool {
    matches!(end, StreamEnd::Error { reason, .. } if reason != "JOURNAL_UNAVAILABLE")
}

/// Ends the watches, and returns the streams.
pub async fn collect_account_watches(
    following: JoinHandle<Vec<Vec<Recording>>>,
    over: &watch::Sender<bool>,
) -> Vec<Vec<Recording>> {
    over.send_replace(true);
    let followed = timeout(TEST_TIMEOUT, following).await;
    let followed = followed.expect("every watch of the account reads to the last event");
    followed.expect("the followers")
}

/// Checks the streams of the account, and that it has the events of all changes.
pub fn check_account(
    account: &AccountRecord,
    changes: &[ClientRecord],
    violations: &mut Vec<String>,
) {
    let reference = &account.whole.messages;
    let streams: Vec<Recording> = account.clients.iter().flatten().cloned().collect();
    if let Err(error) = guarantees::check(&History::new(reference, &streams)) {
        violations.push(format!("account: {error}"));
    }
    let all = events(reference);
    for (client, last) in account.clients.iter().zip(CLIENTS) {
        if let Some(rejected) = client.iter().find(|stream| stream.messages.is_empty()) {
            violations.push(format!("account: {last:?}: rejected: {rejected:?}"));
        }
        let delivered: Vec<&str> =
            client.iter().flat_map(|stream| events(&stream.messages)).collect();
        if !all.starts_with(&delivered) {
            let count = delivered.len();
            violations.push(format!(
                "account: the {count} events of the client {last:?} are not the first ones"
            ));
        }
    }
    let positions = all.iter().enumerate().map(|(position, event)| (*event, position)).collect();
    for change in changes {
        check_change(&positions, change, violations);
    }
}

/// The account has all states of a change, including the final one, and all its results, each in their order.
fn check_change(
    positions: &HashMap<&str, usize>,
    client: &ClientRecord,
    violations: &mut Vec<String>,
) {
    let key = &client.planned_change.key;
    let Some(change) = &client.change else {
        return;
    };
    let events = events(&client.whole.messages);
    for is_kind in [is_result as fn(&str) -> bool, |event| !is_result(event)] {
        let of_kind = events.iter().filter(|event| is_kind(event));
        let mut last = None;
        for event in of_kind {
            let position = positions.get(event).copied();
            if position.is_none() || position <= last {
                violations.push(format!("account: {key}: missing or out of order: {event}"));
            }
            last = position.or(last);
        }
    }
    let state = format!("{} {:?} ", change.change_id, change.state());
    if !positions.keys().any(|event| event.starts_with(&state)) {
        violations.push(format!("account: {key}: its state is missing: {state}"));
    }
}

fn events(messages: &[guarantees::RecordedMessage]) -> Vec<&str> {
    let events = messages.iter().filter_map(|message| match &message.kind {
        MessageKind::Event(text) => Some(text.as_str()),
        _ => None,
    });
    events.collect()
}

/// True for the text of a result, false for that of a state.
fn is_result(event: &str) -> bool {
    event.contains("DeviceId")
}

/// The kinds of messages after which each stream resumed.
pub fn resumed_after(streams: &[Recording]) -> impl Iterator<Item = &'static str> {
    let last = streams.iter().filter_map(|stream| stream.messages.last());
    last.take(streams.len().saturating_sub(1)).map(|message| match &message.kind {
        MessageKind::Opened => "opened",
        MessageKind::Event(text) if is_result(text) => "a result",
        MessageKind::Event(_) => "a state",
        MessageKind::Bookmark => "a bookmark",
        MessageKind::Reconnect => "reconnect",
        MessageKind::Finished { .. } => "finished",
    })
}

/// The messages after which streams must have resumed in a few runs.
pub const RESUMED_AFTER: [&str; 4] = ["opened", "a result", "a state", "a bookmark"];
