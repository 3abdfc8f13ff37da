//! What clients do: they call, give up, call again by the same key, and watch.

use std::{net::SocketAddr, time::Duration};

use thingspace_gateway::proto::{
    self, ChangeEsimPlanRequest, EsimDevice, gateway_service_client::GatewayServiceClient,
    watch_request_response::Event,
};
use tokio::{sync::watch, time::timeout};
use tonic::{Request, Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use super::proxy::Target;
use crate::{
    guarantees::{End, Recording},
    support::{
        gateway::{Client, PATIENCE},
        history::Recorder,
        requests::{ACCOUNT, ESIM_PLAN, watch_key},
    },
};

/// A change that a client wants, and how patient it is.
#[derive(Debug, Clone)]
pub struct Order {
    pub key: String,
    pub devices: Vec<String>,
    /// Whether it calls again by the same key until it knows.
    pub retries: bool,
    /// Twice at the same time.
    pub doubled: bool,
    /// The deadline of the first call.
    pub deadline: Option<Duration>,
    /// The time after which the first call is cancelled.
    pub cancelled: Option<Duration>,
}

// === impl Order ===

impl Order {
    pub fn request(&self) -> ChangeEsimPlanRequest {
        let devices = self.devices.iter().map(|iccid| EsimDevice {
            eid: format!("8904{:0>28}", &iccid[4..]),
            iccid: iccid.clone(),
            client_reference: String::new(),
        });
        ChangeEsimPlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: ESIM_PLAN.into(),
            devices: devices.collect(),
            idempotency_key: self.key.clone(),
            ..ChangeEsimPlanRequest::default()
        }
    }

    /// Calls as this client would. `started` counts its first call.
    pub async fn carry_out(&self, gateway: Target, started: &watch::Sender<usize>) {
        let mut last = None;
        let known = timeout(
            2 * PATIENCE,
            self.call_until_known(gateway, started, &mut last),
        );
        if known.await.is_err() {
            panic!("{} still knows nothing; it was answered {last:?}", self.key);
        }
    }

    async fn call_until_known(
        &self,
        mut gateway: Target,
        started: &watch::Sender<usize>,
        last: &mut Option<Result<proto::Change, Status>>,
    ) {
        let mut client = connect(&mut gateway).await;
        started.send_modify(|count| *count += 1);
        let mut again = client.clone();
        let doubled = async {
            if self.doubled {
                // Its answer says nothing that the other's does not.
                let _same = again.change_esim_plan(self.request()).await;
            }
        };
        let call =
            async { tokio::join!(call(&mut client, self.request(), self.deadline), doubled).0 };
        *last = match self.cancelled {
            Some(after) => timeout(after, call).await.ok(),
            None => Some(call.await),
        };
        while self.retries && !last.as_ref().is_some_and(is_known) {
            let mut client = connect(&mut gateway).await;
            *last = Some(self::call(&mut client, self.request(), None).await);
        }
    }
}

/// A connection to the gateway that runs now, or the next one.
pub async fn connect(gateway: &mut Target) -> Client {
    let address: SocketAddr = gateway
        .wait_for(Option::is_some)
        .await
        .expect("the run goes on")
        .expect("some");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    GatewayServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20)
}

async fn call(
    client: &mut Client,
    request: ChangeEsimPlanRequest,
    deadline: Option<Duration>,
) -> Result<proto::Change, Status> {
    let mut request = Request::new(request);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    let answer = client.change_esim_plan(request).await?.into_inner();
    Ok(answer.change.expect("a change"))
}

/// Whether calling again would tell the client nothing new.
fn is_known(answer: &Result<proto::Change, Status>) -> bool {
    match answer {
        Ok(_) => true,
        Err(status) => status.get_details_error_info().is_some_and(|info| {
            info.metadata
                .get("retry")
                .is_some_and(|retry| retry == "NEVER")
        }),
    }
}

/// Watches a change by its key over every restart, until it has ended or `over` says that no more will come.
pub async fn follow(
    key: String,
    mut gateway: Target,
    mut over: watch::Receiver<bool>,
) -> Vec<Recording> {
    let mut recordings = Vec::new();
    let mut token = String::new();
    loop {
        let mut client = connect(&mut gateway).await;
        let request = proto::WatchRequestRequest {
            resume_token: token.clone(),
            until: proto::Until::Finished.into(),
            ..watch_key(&key)
        };
        let mut recorder = Recorder::open(&mut client, request).await;
        loop {
            let event = tokio::select! {
                event = recorder.next() => event,
                _ = over.wait_for(|over| *over) => {
                    recordings.push(recorder.cut());
                    return recordings;
                }
            };
            match event {
                Some(Event::Finished(_)) => {
                    recordings.push(recorder.finish().await);
                    return recordings;
                }
                Some(_) => {}
                None => break,
            }
        }
        token = recorder.token();
        let recording = recorder.cut();
        if matches!(&recording.end, End::Refused { reason, .. } if reason == "CHANGE_NOT_FOUND") {
            return recordings;
        }
        if !recording.messages.is_empty() {
            recordings.push(recording);
        }
        // The gateway may be about to be killed.
        tokio::task::yield_now().await;
    }
}
