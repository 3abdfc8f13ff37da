//! A call whose caller loses its rights while the message arrives.

use futures_util::stream;
use thingspace_gateway::proto::{
    ChangeEsimPlanRequest, ChangeEsimPlanResponse, GetStatusRequest, PauseChangesRequest,
    PauseChangesResponse, operator_service_client::OperatorServiceClient,
};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use super::{ACCOUNT_A, RestrictedGateway, callers::Connection, calls::change_esim};
use crate::support::{
    requests::parse_error,
    wait::{eventually, in_time},
};

/// A call whose headers are sent, and whose message is not.
struct BegunCall {
    send: oneshot::Sender<()>,
    call: JoinHandle<Result<(), Status>>,
}

impl BegunCall {
    fn begin<Q, R>(connection: &Connection, path: &'static str, message: Q) -> Self
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let (send, sent) = oneshot::channel();
        let mut client = Grpc::new(connection.clone());
        let messages = stream::once(async { sent.await.map(|()| message).expect("sent") });
        let call = tokio::spawn(async move {
            client.ready().await.expect("a connection");
            let codec = ProstCodec::<Q, R>::default();
            let request = Request::new(messages);
            // On the wire, a call with one message looks the same.
            let response = client.client_streaming(request, path.parse().expect("a path"), codec);
            response.await.map(|_| ())
        });
        Self { send, call }
    }

    /// Sends the message. Returns the error of the call.
    async fn finish(self) -> Status {
        self.send.send(()).expect("the call waits");
        in_time(self.call).await.expect("no panic").expect_err("refused")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_removed_while_its_message_arrives_changes_nothing() {
    let gateway = RestrictedGateway::start().await;
    let (fleet, admin) = (gateway.connect("jwt-fleet").await, gateway.connect("jwt-admin").await);

    let change = BegunCall::begin::<ChangeEsimPlanRequest, ChangeEsimPlanResponse>(
        &fleet,
        "/thingspace.gateway.v1.GatewayService/ChangeEsimPlan",
        change_esim(ACCOUNT_A.to_owned()),
    );
    let pause = BegunCall::begin::<PauseChangesRequest, PauseChangesResponse>(
        &admin,
        "/thingspace.gateway.v1.OperatorService/PauseChanges",
        PauseChangesRequest::default(),
    );
    let other = "[[caller]]\nname = \"other\"\nidentities = [\"jwt:x\"]\n";
    gateway.trust.files.replace("policy.toml", other);
    let mut operator = OperatorServiceClient::new(admin);
    eventually("the callers are removed", async || {
        operator.get_status(GetStatusRequest {}).await.is_err()
    })
    .await;
    for (call, executed) in [(change, Some("UNKNOWN")), (pause, None)] {
        let refused = parse_error(&call.finish().await);
        let expected = (Code::PermissionDenied, "PERMISSION_DENIED", "NEVER", executed);
        assert_eq!(refused.summary(), expected);
    }
    assert_eq!(gateway.thingspace.posts(), 0);
}
