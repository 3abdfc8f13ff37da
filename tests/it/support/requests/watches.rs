//! Watches of changes, requests and accounts.

use std::{collections::HashSet, fmt::Debug, pin::Pin};

use futures_util::{Stream, StreamExt as _};
use thingspace_gateway::proto::{
    Change, DeviceResult, Until, WatchAccountRequest, WatchAccountResponse, WatchRequestRequest,
    WatchRequestResponse, watch_account_response, watch_request_response::Event,
};
use tonic::Status;

use super::changes::ACCOUNT;
use crate::support::{gateway::Client, wait::in_time};

pub fn watch_change(change: &Change) -> WatchRequestRequest {
    WatchRequestRequest { change_id: change.change_id.clone(), ..WatchRequestRequest::default() }
}

pub fn watch_request(request_id: &str) -> WatchRequestRequest {
    WatchRequestRequest { request_id: request_id.into(), ..WatchRequestRequest::default() }
}

pub fn watch_key(key: &str) -> WatchRequestRequest {
    WatchRequestRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key.into(),
        ..WatchRequestRequest::default()
    }
}

pub fn watch_account(account: &str) -> WatchAccountRequest {
    WatchAccountRequest { account_name: account.into(), ..WatchAccountRequest::default() }
}

/// Ends the watch after the stored events.
pub fn until_caught_up<R: WatchCall>(request: R) -> R {
    request.until(Until::CaughtUp)
}

/// Resumes after the event that carried this token.
pub fn resume(token: &str) -> WatchRequestRequest {
    WatchRequestRequest { resume_token: token.into(), ..WatchRequestRequest::default() }
}

/// Resumes the watch of an account after the event that carried this token.
pub fn resume_account(token: &str) -> WatchAccountRequest {
    watch_account(ACCOUNT).resume(token)
}

/// The messages of a watch. Those of an account have the same events, except `finished`.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchRequestResponse, Status>> + Send>>;

/// A request that opens a watch.
pub trait WatchCall: Debug + Clone + Send + Sync + 'static {
    /// Sends the request.
    fn call(self, client: &mut Client) -> impl Future<Output = Result<WatchStream, Status>> + Send;

    /// The token that the stream resumes with.
    fn token(&self) -> &str;

    /// Sets the token. An empty one starts at the first event.
    fn resume(self, token: &str) -> Self;

    fn until(self, until: Until) -> Self;
}

impl WatchCall for WatchRequestRequest {
    async fn call(self, client: &mut Client) -> Result<WatchStream, Status> {
        Ok(client.watch_request(self).await?.into_inner().boxed())
    }

    fn token(&self) -> &str {
        &self.resume_token
    }

    fn resume(self, token: &str) -> Self {
        Self { resume_token: token.into(), ..self }
    }

    fn until(self, until: Until) -> Self {
        Self { until: until.into(), ..self }
    }
}

impl WatchCall for WatchAccountRequest {
    async fn call(self, client: &mut Client) -> Result<WatchStream, Status> {
        let messages = client.watch_account(self).await?.into_inner();
        Ok(messages.map(|message| message.map(from_account)).boxed())
    }

    fn token(&self) -> &str {
        &self.resume_token
    }

    fn resume(self, token: &str) -> Self {
        Self { resume_token: token.into(), ..self }
    }

    fn until(self, until: Until) -> Self {
        Self { until: until.into(), ..self }
    }
}

/// Converts a message, so that one reader and one set of checkers handle both kinds of streams.
fn from_account(message: WatchAccountResponse) -> WatchRequestResponse {
    let event = message.event.map(|event| match event {
        watch_account_response::Event::Opened(opened) => Event::Opened(opened),
        watch_account_response::Event::DeviceResult(result) => Event::DeviceResult(result),
        watch_account_response::Event::StateChanged(changed) => Event::StateChanged(changed),
        watch_account_response::Event::Bookmark(bookmark) => Event::Bookmark(bookmark),
        watch_account_response::Event::Reconnect(reconnect) => Event::Reconnect(reconnect),
    });
    WatchRequestResponse { resume_token: message.resume_token, event }
}

/// An open watch.
pub struct Watch(WatchStream);

/// All messages of a watch, and its end.
#[derive(Debug)]
pub struct WatchTranscript {
    pub messages: Vec<WatchRequestResponse>,
    pub end: Result<(), Status>,
}

impl Watch {
    pub async fn open(client: &mut Client, request: impl WatchCall) -> Self {
        Self::try_open(client, request).await.expect("it opens")
    }

    pub async fn try_open(client: &mut Client, request: impl WatchCall) -> Result<Self, Status> {
        in_time(request.call(client)).await.map(Self)
    }

    /// Returns the next message.
    pub async fn next(&mut self) -> WatchRequestResponse {
        let message = in_time(self.0.next()).await.expect("no end");
        message.expect("no error")
    }

    /// Returns all messages up to the one with this summary.
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

    /// Reads to the end.
    pub async fn read_to_end(mut self) -> WatchTranscript {
        let mut messages = Vec::new();
        let all = async {
            loop {
                match self.0.next().await {
                    Some(Ok(message)) => messages.push(message),
                    Some(Err(status)) => return Err(status),
                    None => return Ok(()),
                }
            }
        };
        let end = in_time(all).await;
        WatchTranscript { messages, end }
    }
}

impl WatchTranscript {
    /// Opens a watch and reads it to its end.
    pub async fn record(client: &mut Client, request: impl WatchCall) -> Self {
        Watch::open(client, request).await.read_to_end().await
    }

    /// Returns the summary of each message of a watch that ended with OK.
    pub fn summaries(&self) -> Vec<String> {
        assert!(self.end.is_ok(), "{self:?}");
        self.messages.iter().map(summarize).collect()
    }

    pub fn results(&self) -> Vec<DeviceResult> {
        let results = self.messages.iter().filter_map(|message| match &message.event {
            Some(Event::DeviceResult(result)) => Some(result.clone()),
            _ => None,
        });
        results.collect()
    }

    /// Returns the summary of the last message.
    pub fn last_summary(&self) -> String {
        self.summaries().pop().expect("a message")
    }

    pub fn last_token(&self) -> &str {
        &self.messages.last().expect("a message").resume_token
    }
}

/// Returns the short form of a message, such as `result 0 SUCCEEDED`.
pub fn summarize(message: &WatchRequestResponse) -> String {
    assert!(!message.resume_token.is_empty());
    let of = |change: &Option<Change>| change.as_ref().map_or("-", state_name).to_owned();
    match message.event.as_ref().expect("an event") {
        Event::Opened(opened) => format!("opened {}", of(&opened.change)),
        Event::DeviceResult(result) => format!(
            "result {} {}",
            result.device_index.map_or_else(|| "-".to_owned(), |index| index.to_string()),
            result.outcome().as_str_name().trim_start_matches("OUTCOME_")
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

/// Returns the ICCIDs of all stored results of a request. Fails if a profile has two results.
pub async fn stored_iccids(client: &mut Client, request_id: &str) -> HashSet<String> {
    let request = until_caught_up(watch_request(request_id));
    let results = WatchTranscript::record(client, request).await.results();
    let iccids = results.iter().flat_map(|result| &result.device_ids);
    let iccids = iccids.filter(|id| id.kind == "iccid");
    let found: HashSet<String> = iccids.map(|id| id.id.clone()).collect();
    assert_eq!(found.len(), results.len(), "one result for each profile");
    found
}

/// Returns all stored results of a request, with their raw callbacks.
pub async fn stored_results(client: &mut Client, request_id: &str) -> Vec<DeviceResult> {
    let request =
        WatchRequestRequest { include_raw: true, ..until_caught_up(watch_request(request_id)) };
    match Watch::try_open(client, request).await {
        Ok(watch) => watch.read_to_end().await.results(),
        Err(_unknown_request) => Vec::new(),
    }
}
