//! What clients do: they call, give up, call again by the same key, and watch.

use std::net::SocketAddr;

use thingspace_gateway::proto::{self, gateway_service_client::GatewayServiceClient};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use super::{planned_changes::PlannedChange, proxy::UpstreamAddress};
use crate::{
    guarantees::{Recording, StreamEnd},
    support::{
        gateway::{Client, TEST_TIMEOUT},
        history::WatchRecorder,
        requests::watch_key,
    },
};

type CallResult = Result<proto::Change, Status>;

/// How a client's first call went.
#[derive(Debug, Clone, Copy)]
pub struct FirstCall {
    pub began: Instant,
    pub deadline_passed: bool,
    pub cancelled: bool,
}

impl PlannedChange {
    /// Calls as this client would. `started` counts its first call.
    pub async fn run_first_call(
        &self,
        gateway: UpstreamAddress,
        started: &watch::Sender<usize>,
    ) -> FirstCall {
        let mut last = None;
        let known = timeout(
            2 * TEST_TIMEOUT,
            self.call_until_definite(gateway, started, &mut last),
        );
        match known.await {
            Ok(asked) => asked,
            Err(_) => panic!("{} still knows nothing; it was answered {last:?}", self.key),
        }
    }

    async fn call_until_definite(
        &self,
        mut gateway: UpstreamAddress,
        started: &watch::Sender<usize>,
        last: &mut Option<CallResult>,
    ) -> FirstCall {
        let mut client = connect(&mut gateway).await;
        started.send_modify(|count| *count += 1);
        let began = Instant::now();
        let mut again = client.clone();
        let doubled = async {
            if self.is_sent_twice {
                // Its answer says nothing that the other's does not.
                let _same = self.call(&mut again, None).await;
            }
        };
        let call = async { tokio::join!(self.call(&mut client, self.deadline), doubled).0 };
        *last = match self.cancelled {
            Some(after) => timeout(after, call).await.ok(),
            None => Some(call.await),
        };
        let passed = |answer: &CallResult| {
            let code = answer.as_ref().err().map(Status::code);
            // A client's own clock cancels, the server's answers.
            self.deadline.is_some()
                && matches!(code, Some(Code::DeadlineExceeded | Code::Cancelled))
        };
        let asked = FirstCall {
            began,
            deadline_passed: last.as_ref().is_some_and(passed),
            cancelled: last.is_none(),
        };
        while self.retries && !last.as_ref().is_some_and(is_definite) {
            let mut client = connect(&mut gateway).await;
            *last = Some(self.call(&mut client, None).await);
        }
        asked
    }

    /// Watches the change by its key over every restart, until it has ended or `over` says that no more
    /// will come.
    pub async fn follow(
        &self,
        mut gateway: UpstreamAddress,
        mut over: watch::Receiver<bool>,
    ) -> Vec<Recording> {
        let mut recordings: Vec<Recording> = Vec::new();
        let mut token = String::new();
        loop {
            let is_first = recordings.is_empty();
            let until = if is_first && self.has_catch_up_watch {
                proto::Until::CaughtUp
            } else {
                proto::Until::Finished
            };
            let leaves_after = self.disconnect_after.filter(|_| recordings.len() < 2);
            let mut client = connect(&mut gateway).await;
            let request = proto::WatchRequestRequest {
                resume_token: token.clone(),
                until: until.into(),
                ..watch_key(&self.key)
            };
            let mut recorder = WatchRecorder::open(&mut client, request).await;
            let mut messages = 0;
            while leaves_after != Some(messages) {
                let event = tokio::select! {
                    event = recorder.next() => event,
                    _ = over.wait_for(|over| *over) => {
                        recordings.push(recorder.cut());
                        return recordings;
                    }
                };
                match event {
                    Some(_) => messages += 1,
                    None => break,
                }
            }
            token = recorder.token();
            let recording = recorder.cut();
            if matches!(&recording.end, StreamEnd::Refused { reason, .. } if reason == "CHANGE_NOT_FOUND")
            {
                return recordings;
            }
            let is_over = recording.ends_with_finished() && recording.end == StreamEnd::Ok;
            if !recording.messages.is_empty() {
                recordings.push(recording);
            }
            if is_over {
                return recordings;
            }
            // The gateway may be about to be killed.
            tokio::task::yield_now().await;
        }
    }
}

/// A connection to the gateway that runs now, or the next one.
pub async fn connect(gateway: &mut UpstreamAddress) -> Client {
    let address: SocketAddr = gateway
        .wait_for(Option::is_some)
        .await
        .expect("the run goes on")
        .expect("some");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    GatewayServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20)
}

/// Whether calling again would tell the client nothing new.
fn is_definite(answer: &CallResult) -> bool {
    match answer {
        Ok(_) => true,
        Err(status) => status.get_details_error_info().is_some_and(|info| {
            info.metadata
                .get("retry")
                .is_some_and(|retry| retry == "NEVER")
        }),
    }
}
