//! What clients watch, and what a watch tells.

use thingspace_gateway::proto::{
    Change, ChangeState, DeviceResult, Outcome, Until, WatchRequestRequest, WatchRequestResponse,
    watch_request_response::Event,
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{ACCOUNT, Client, TEST_TIMEOUT};

pub fn watch_change(change: &Change) -> WatchRequestRequest {
    WatchRequestRequest {
        change_id: change.change_id.clone(),
        ..WatchRequestRequest::default()
    }
}

pub fn watch_request(request_id: &str) -> WatchRequestRequest {
    WatchRequestRequest {
        request_id: request_id.into(),
        ..WatchRequestRequest::default()
    }
}

pub fn watch_key(key: &str) -> WatchRequestRequest {
    WatchRequestRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key.into(),
        ..WatchRequestRequest::default()
    }
}

/// Only what is stored.
pub fn until_caught_up(request: WatchRequestRequest) -> WatchRequestRequest {
    WatchRequestRequest {
        until: Until::CaughtUp.into(),
        ..request
    }
}

/// From after the event that carried this token.
pub fn resume(token: &str) -> WatchRequestRequest {
    WatchRequestRequest {
        resume_token: token.into(),
        ..WatchRequestRequest::default()
    }
}

/// An open watch.
pub struct Watch(Streaming<WatchRequestResponse>);

/// What a watch sent, and how it ended.
#[derive(Debug)]
pub struct WatchTranscript {
    pub messages: Vec<WatchRequestResponse>,
    pub end: Result<(), Status>,
}

impl Watch {
    pub async fn open(client: &mut Client, request: WatchRequestRequest) -> Self {
        Self::try_open(client, request).await.expect("it opens")
    }

    pub async fn try_open(
        client: &mut Client,
        request: WatchRequestRequest,
    ) -> Result<Self, Status> {
        let opened = timeout(TEST_TIMEOUT, client.watch_request(request)).await;
        Ok(Self(opened.expect("in time")?.into_inner()))
    }

    /// The next message.
    pub async fn next(&mut self) -> WatchRequestResponse {
        let message = timeout(TEST_TIMEOUT, self.0.message()).await;
        let message = message.expect("a message in time").expect("no error");
        message.expect("no end")
    }

    /// All messages up to the one of which this is the short form.
    pub async fn read_until(&mut self, last: &str) -> Vec<WatchRequestResponse> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let is_last = summarize(&message) == last;
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// All messages to the end.
    pub async fn read_to_end(mut self) -> WatchTranscript {
        let mut messages = Vec::new();
        let all = async {
            loop {
                match self.0.message().await {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(status),
                }
            }
        };
        let end = timeout(TEST_TIMEOUT, all).await.expect("an end in time");
        WatchTranscript { messages, end }
    }
}

impl WatchTranscript {
    /// Opens a watch and reads it to its end.
    pub async fn record(client: &mut Client, request: WatchRequestRequest) -> Self {
        Watch::open(client, request).await.read_to_end().await
    }

    pub fn short(&self) -> Vec<String> {
        assert!(self.end.is_ok(), "{self:?}");
        self.messages.iter().map(summarize).collect()
    }

    pub fn results(&self) -> Vec<DeviceResult> {
        let results = self
            .messages
            .iter()
            .filter_map(|message| match &message.event {
                Some(Event::DeviceResult(result)) => Some(result.clone()),
                _ => None,
            });
        results.collect()
    }

    pub fn last_token(&self) -> &str {
        &self.messages.last().expect("a message").resume_token
    }
}

/// One message as a test names it.
pub fn summarize(message: &WatchRequestResponse) -> String {
    assert!(!message.resume_token.is_empty());
    let of = |change: &Option<Change>| change.as_ref().map_or("-", state_name).to_owned();
    match message.event.as_ref().expect("an event") {
        Event::Opened(opened) => format!("opened {}", of(&opened.change)),
        Event::DeviceResult(result) => format!(
            "result {} {}",
            result
                .device_index
                .map_or_else(|| "-".to_owned(), |index| index.to_string()),
            result
                .outcome()
                .as_str_name()
                .trim_start_matches("OUTCOME_")
        ),
        Event::StateChanged(changed) => format!("state {}", of(&changed.change)),
        Event::Bookmark(_) => "bookmark".to_owned(),
        Event::Reconnect(reconnect) => format!("reconnect {:?}", reconnect.reason()),
        Event::Finished(finished) => format!("finished {}", of(&finished.change)),
    }
}

fn state_name(change: &Change) -> &'static str {
    let name = change.state().as_str_name();
    name.trim_start_matches("CHANGE_STATE_")
}

pub fn outcomes(outcomes: &[Outcome]) -> Vec<i32> {
    outcomes.iter().map(|outcome| (*outcome).into()).collect()
}

pub fn states(states: &[ChangeState]) -> Vec<i32> {
    states.iter().map(|state| (*state).into()).collect()
}
