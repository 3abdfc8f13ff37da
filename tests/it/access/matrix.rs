//! Every caller of matrix.txt makes every call of it.

use std::collections::HashSet;

use thingspace_gateway::proto::gateway_service_client::GatewayServiceClient;

use super::{
    ACCOUNT_A, ACCOUNT_B, RestrictedGateway,
    callers::Connection,
    calls::{KEY, MADE_ELSEWHERE, WITHOUT_ACCOUNT, World, change_esim, make},
};
use crate::support::{
    gateway::Gateway,
    http::{post, read_metrics},
    requests::{esim_callback, iccid},
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
    wait::in_time,
};

const MATRIX: &str = include_str!("../../access/matrix.txt");

/// The rows of the table: a caller, and the result of each call.
fn rows() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let lines = MATRIX.lines().filter(|line| line.contains('|'));
    let mut cells = lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let calls = cells.next().expect("a header");
    let row = |cells: Vec<&'static str>| {
        let mut results = cells[1..].to_vec();
        if results.last() == Some(&"...") {
            results.pop();
            let last = *results.last().expect("a result");
            results.resize(calls.len() - 1, last);
        }
        assert_eq!(results.len(), calls.len() - 1, "{}", cells[0]);
        (cells[0], calls[1..].iter().copied().zip(results).collect())
    };
    cells.map(row).collect()
}

/// Makes a change of each account, and results that were made elsewhere.
async fn make_world(gateway: &Gateway, thingspace: &FakeThingSpace, admin: &Connection) -> World {
    let mut client = GatewayServiceClient::new(admin.clone());
    let mut ids = Vec::new();
    for (number, account) in [ACCOUNT_A, ACCOUNT_B].into_iter().enumerate() {
        let request_id = format!("request-{number}");
        thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(request_id.clone()));
        let mut request = change_esim(account.to_owned());
        request.idempotency_key = KEY.to_owned();
        request.devices[0].iccid = iccid(number);
        let change = in_time(client.change_esim_plan(request)).await.expect("OK");
        ids.push(change.into_inner().change.expect("a change").change_id);
        let url = gateway.callback_url("DeviceProfileService");
        assert_eq!(post(&url, esim_callback(&request_id, number).to_string()).await.0, 200);
    }
    let with_account = gateway.account_callback_url(ACCOUNT_A, "DeviceProfileService");
    let without_account = gateway.callback_url("DeviceProfileService");
    for (request_id, number, url) in
        [(MADE_ELSEWHERE, 500, with_account), (WITHOUT_ACCOUNT, 501, without_account)]
    {
        let callback = esim_callback(request_id, number).to_string();
        assert_eq!(post(&url, callback).await.0, 200);
    }
    let [change_a, change_b] = <[String; 2]>::try_from(ids).expect("two changes");
    World { change_a, change_b }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_may_do_exactly_what_the_policy_permits() {
    let mut restricted = RestrictedGateway::start().await;
    let admin = restricted.connect("jwt-admin").await;
    let world = make_world(&restricted.gateway, &restricted.thingspace, &admin).await;

    let (mut cells, mut wrong) = (0, Vec::new());
    for (caller, row) in rows() {
        let connection = restricted.try_connect(caller).await;
        for (call, expected) in row {
            let result = match &connection {
                Some(connection) if expected != "closed" => make(call, connection, &world).await,
                // With TLS 1.3, a client learns with its first call that its certificate is refused.
                Some(connection) => refused_connection(connection).await,
                None => "closed".to_owned(),
            };
            cells += 1;
            if result != expected {
                wrong.push(format!("{caller} {call}: {result}, not {expected}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(cells > 700, "{cells}");
    let metrics = read_metrics(&restricted.gateway).await;
    let reasons: HashSet<&str> = [
        "no_credential",
        "expired",
        "not_yet_valid",
        "wrong_audience",
        "wrong_issuer",
        "algorithm",
        "unknown_key",
        "bad_signature",
        "malformed_token",
    ]
    .into();
    for reason in reasons {
        let mut series = metrics.lines().filter(|line| {
            line.starts_with("thingspace_gateway_auth_failures_total") && line.contains(reason)
        });
        assert!(series.any(|line| !line.ends_with(" 0")), "{reason}");
    }
    // No line of the log contains a token or the name of a stranger.
    let log = restricted.gateway.kill().await;
    assert!(!log.contains("eyJ"), "{log}");
}

async fn refused_connection(connection: &Connection) -> String {
    let mut client = GatewayServiceClient::new(connection.clone());
    let request = thingspace_gateway::proto::GetServerInfoRequest {};
    match in_time(client.get_server_info(request)).await {
        Err(status) if status.details().is_empty() => "closed".to_owned(),
        result => format!("{result:?}"),
    }
}
