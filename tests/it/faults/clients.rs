//! The clients of a run: calls, deadlines, cancellations, retries and watches.

use thingspace_gateway::proto::{self, gateway_service_client::GatewayServiceClient};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{Code, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use super::{
    client_record::FirstCall,
    deployment::{Addresses, Progress},
    planned_changes::PlannedChange,
};
use crate::{
    guarantees::{Recording, StreamEnd},
    support::{gateway::Client, history::WatchRecorder, requests::watch_key, wait::TEST_TIMEOUT},
};

type CallResult = Result<proto::Change, Status>;

/// Calls with the faults of the planned change, and retries until the result is definite.
pub async fn run_first_call(
    planned: &PlannedChange,
    gateway: Addresses,
    progress: &Progress,
) -> FirstCall {
    progress.start_change().await;
    let mut last = None;
    let definite = timeout(2 * TEST_TIMEOUT, call_until_definite(planned, gateway, &mut last));
    match definite.await {
        Ok(first_call) => first_call,
        Err(_) => panic!("{} has no definite result: {last:?}", planned.key),
    }
}

async fn call_until_definite(
    planned: &PlannedChange,
    mut gateway: Addresses,
    last: &mut Option<CallResult>,
) -> FirstCall {
    let mut client = connect(&mut gateway).await;
    let start = Instant::now();
    let mut again = client.clone();
    let duplicate = async {
        if planned.is_sent_twice {
            // Its result equals that of the other call.
            let _same = planned.call(&mut again, None).await;
        }
    };
    let call = async { tokio::join!(planned.call(&mut client, planned.deadline), duplicate).0 };
    *last = match planned.cancel_after {
        Some(after) => timeout(after, call).await.ok(),
        None => Some(call.await),
    };
    let passed = |result: &CallResult| {
        let code = result.as_ref().err().map(Status::code);
        // The client library returns CANCELLED, the server DEADLINE_EXCEEDED.
        planned.deadline.is_some() && matches!(code, Some(Code::DeadlineExceeded | Code::Cancelled))
    };
    let first_call = FirstCall {
        start,
        deadline_passed: last.as_ref().is_some_and(passed),
        cancelled: last.is_none(),
    };
    while planned.retries && !last.as_ref().is_some_and(is_definite) {
        let mut client = connect(&mut gateway).await;
        *last = Some(planned.call(&mut client, None).await);
    }
    first_call
}

/// Watches the change by its key over all restarts, until the watch ends or `over` is true.
pub async fn follow(
    planned: &PlannedChange,
    mut gateway: Addresses,
    mut over: watch::Receiver<bool>,
) -> Vec<Recording> {
    let mut recordings: Vec<Recording> = Vec::new();
    let mut token = String::new();
    loop {
        let is_first = recordings.is_empty();
        let until = if is_first && planned.has_catch_up_watch {
            proto::Until::CaughtUp
        } else {
            proto::Until::Finished
        };
        let leaves_after = planned.disconnect_after.filter(|_| recordings.len() < 2);
        let mut client = connect(&mut gateway).await;
        let request = proto::WatchRequestRequest {
            resume_token: token.clone(),
            until: until.into(),
            ..watch_key(&planned.key)
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
        if matches!(&recording.end, StreamEnd::Error { reason, .. } if reason == "CHANGE_NOT_FOUND")
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
        // The connection can belong to a gateway that is being killed.
        tokio::task::yield_now().await;
    }
}

/// Returns a client of a random running gateway. Waits until one runs.
pub async fn connect(gateway: &mut Addresses) -> Client {
    let running = gateway.wait_for(|addresses| !addresses.is_empty()).await;
    let running = running.expect("the run is not over");
    let address = running[fastrand::usize(0..running.len())];
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    GatewayServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20)
}

/// True if a retry cannot change the result.
fn is_definite(result: &CallResult) -> bool {
    match result {
        Ok(_) => true,
        Err(status) => status
            .get_details_error_info()
            .is_some_and(|info| info.metadata.get("retry").is_some_and(|retry| retry == "NEVER")),
    }
}
