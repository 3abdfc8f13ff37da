//! Errors name a change of another caller only to callers that may see it.

use thingspace_gateway::proto::{
    ChangeEsimPlanRequest, PauseChangesRequest, gateway_service_client::GatewayServiceClient,
    operator_service_client::OperatorServiceClient,
};

use super::{ACCOUNT_A, RestrictedGateway, callers::Connection, calls::change_esim};
use crate::support::{
    requests::parse_error,
    thingspace::{CallKind, FakeResponse},
    wait::in_time,
};

/// Makes a change that is refused. Returns the reason, and the change that the error names.
async fn refusal(
    connection: &Connection,
    request: &ChangeEsimPlanRequest,
) -> (String, Option<String>) {
    let mut client = GatewayServiceClient::new(connection.clone());
    let refused = in_time(client.change_esim_plan(request.clone())).await.expect_err("refused");
    let mut error = parse_error(&refused);
    (error.reason, error.metadata.remove("change_id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_hide_the_changes_of_other_callers_from_a_caller_that_may_only_change() {
    let gateway = RestrictedGateway::start().await;
    let thingspace = &gateway.thingspace;
    let admin = gateway.connect("jwt-admin").await;
    let mut changes = GatewayServiceClient::new(admin.clone());
    // Its outcome is unknown, so its devices stay busy.
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    let existing = change_esim(ACCOUNT_A.to_owned());
    let change = in_time(changes.change_esim_plan(existing.clone())).await.expect("OK");
    let existing_id = change.into_inner().change.expect("a change").change_id;

    let key_reused = ChangeEsimPlanRequest {
        idempotency_key: existing.idempotency_key.clone(),
        ..change_esim(ACCOUNT_A.to_owned())
    };
    let device_busy = ChangeEsimPlanRequest {
        devices: existing.devices.clone(),
        ..change_esim(ACCOUNT_A.to_owned())
    };
    // `changer` may change the account and not list it. `fleet` may do both.
    let (changer, fleet) =
        (gateway.connect("cert-changer").await, gateway.connect("jwt-fleet").await);
    for (reason, request) in [("IDEMPOTENCY_KEY_REUSED", key_reused), ("DEVICE_BUSY", device_busy)]
    {
        assert_eq!(refusal(&changer, &request).await, (reason.to_owned(), None));
        let visible = (reason.to_owned(), Some(existing_id.clone()));
        assert_eq!(refusal(&fleet, &request).await, visible);
    }

    // A change that was not sent, and would be sent again.
    thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
    let not_sent = change_esim(ACCOUNT_A.to_owned());
    let (reason, not_sent_id) = refusal(&admin, &not_sent).await;
    assert_eq!(reason, "THROTTLED");
    let mut operator = OperatorServiceClient::new(admin);
    in_time(operator.pause_changes(PauseChangesRequest::default())).await.expect("paused");
    let paused = "CHANGES_PAUSED".to_owned();
    assert_eq!(refusal(&changer, &not_sent).await, (paused.clone(), None));
    assert_eq!(refusal(&fleet, &not_sent).await, (paused, not_sent_id));
}
