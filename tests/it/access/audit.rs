//! The audit log has a record of every call, also of those that were refused.

use std::{fs, ops::Deref};

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    ChangeEsimPlanRequest, GetServerInfoRequest, ListQuarantinedCallbacksRequest,
    PauseChangesRequest, gateway_service_client::GatewayServiceClient,
    operator_service_client::OperatorServiceClient,
};
use tonic::Code;

use super::{ACCOUNT_A, ACCOUNT_B, RestrictedGateway, calls::change_esim, streams::AccountWatch};
use crate::support::{
    cli,
    disk::FaultyDisk,
    gateway::{Setup, TestDir},
    requests::{esim, parse_error},
    thingspace::{CallKind, FakeResponse},
    wait::{eventually, in_time},
};

const CHANGE: &str = "thingspace.gateway.v1.GatewayService/ChangeEsimPlan";

/// A gateway with an audit log.
struct Audited(RestrictedGateway);

impl Deref for Audited {
    type Target = RestrictedGateway;

    fn deref(&self) -> &RestrictedGateway {
        &self.0
    }
}

impl Audited {
    async fn start(configure: impl FnOnce(Setup, &TestDir) -> Setup) -> Self {
        let configure = |setup: Setup, directory: &TestDir| {
            configure(setup.set("audit.output", "file"), directory)
        };
        Self(RestrictedGateway::start_with(configure).await)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.directory.join("audit.log")).unwrap_or_default()
    }

    fn records(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Returns the records with these values, once there are `count` of them.
    async fn wait_for(&self, count: usize, values: &Value) -> Vec<Value> {
        let matching = || {
            let mut records = self.records();
            records.retain(|record| {
                let mut wanted = values.as_object().expect("an object").iter();
                wanted.all(|(name, value)| record[name] == *value)
            });
            records
        };
        eventually(&format!("{count} records {values}"), async || matching().len() >= count).await;
        matching()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_a_record_with_its_caller_its_account_and_its_outcome() {
    let mut audited = Audited::start(|setup, _| setup).await;
    let fleet = audited.connect("jwt-fleet").await;
    let mut client = GatewayServiceClient::new(fleet.clone());
    let change = in_time(client.change_esim_plan(change_esim(ACCOUNT_A.into()))).await;
    let change = change.expect("OK").into_inner().change.expect("a change");

    // Both records are on disk when the response arrives.
    let of_change = audited.wait_for(2, &json!({ "method": CHANGE })).await;
    let expected = json!({
        "caller": "fleet", "identity": "jwt:fleet", "auth_method": "jwt", "peer": "127.0.0.1",
        "account": ACCOUNT_A, "operation": "esim_plan", "devices": 1,
    });
    for (record, event) in of_change.iter().zip(["call_started", "call"]) {
        assert_eq!(record["event"], event);
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(record[name], *value, "{name} of {record}");
        }
    }
    assert_eq!(of_change[0]["call_id"], of_change[1]["call_id"]);
    assert_eq!(
        (&of_change[1]["code"], &of_change[1]["executed"], &of_change[1]["change_id"]),
        (&json!("OK"), &json!("YES"), &json!(change.change_id))
    );

    let denied = in_time(client.change_esim_plan(change_esim(ACCOUNT_B.into()))).await;
    assert!(denied.is_err());
    let wanted = json!({ "reason": "PERMISSION_DENIED", "account": ACCOUNT_B, "caller": "fleet" });
    audited.wait_for(1, &wanted).await;
    let watch = AccountWatch::open(&fleet, "").await;
    audited.wait_for(1, &json!({ "event": "stream_opened", "account": ACCOUNT_A })).await;
    drop(watch);
    audited.wait_for(1, &json!({ "event": "stream_ended", "code": "CANCELLED" })).await;

    let mut operator = OperatorServiceClient::new(audited.connect("jwt-admin").await);
    let pause = PauseChangesRequest { account_name: ACCOUNT_B.into(), ..Default::default() };
    in_time(operator.pause_changes(pause)).await.expect("OK");
    let wanted = json!({ "action": "pause_changes", "caller": "admin", "account": ACCOUNT_B });
    audited.wait_for(2, &wanted).await;
    let socket = audited.directory.join("admin.sock");
    let environment = [("TSGW_ADMIN__SOCKET", socket.to_str().unwrap())];
    let resumed = cli::run(&["changes", "resume", "--account", ACCOUNT_B], &environment).await;
    assert_eq!(resumed.stdout, "{\"resumed\":true}\n");
    let wanted = json!({ "action": "resume_changes", "caller": "local", "auth_method": "none" });
    audited.wait_for(2, &wanted).await;

    // Calls without an identity are counted.
    let mut stranger = GatewayServiceClient::new(audited.connect("no-credential").await);
    for _ in 0..20 {
        in_time(stranger.change_esim_plan(change_esim(ACCOUNT_A.into()))).await.unwrap_err();
    }
    assert_eq!(audited.0.gateway.terminate().await.code, Some(0));
    let refusals = audited.wait_for(1, &json!({ "event": "refusals" })).await;
    let count: u64 = refusals.iter().filter_map(|record| record["count"].as_u64()).sum();
    assert_eq!((count, &refusals[0]["reason"]), (20, &json!("UNAUTHENTICATED")));
    assert_eq!(audited.records().last().unwrap()["event"], "log_stopped");
    let text = audited.text();
    let device = &esim("key", [1_000]).devices[0];
    for secret in ["eyJ", "key-", &device.iccid, "row-", "job-7"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_repeats_calls_writes_few_records_and_each_call_is_counted() {
    let mut audited = Audited::start(|setup, _| setup).await;
    let caller = "account-operator";
    let connection = audited.connect("jwt-account-operator").await;
    let mut client = GatewayServiceClient::new(connection);
    for _ in 0..500 {
        in_time(client.get_server_info(GetServerInfoRequest {})).await.expect("OK");
    }
    // Rejected before it begins.
    let mut changer = GatewayServiceClient::new(audited.connect("jwt-fleet").await);
    for _ in 0..500 {
        let request = ChangeEsimPlanRequest::default();
        let status = in_time(changer.change_esim_plan(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    assert_eq!(audited.0.gateway.terminate().await.code, Some(0));
    for (caller, code) in [(caller, "OK"), ("fleet", "INVALID_ARGUMENT")] {
        let records = audited.records();
        let of_caller = records.iter().filter(|record| record["caller"] == caller);
        let of_caller: Vec<_> = of_caller.collect();
        assert!(of_caller.iter().all(|record| record["code"] == code), "{of_caller:?}");
        let calls = of_caller.iter().map(|record| record["count"].as_u64().unwrap_or(1));
        assert_eq!(calls.sum::<u64>(), 500, "{of_caller:?}");
        assert!(of_caller.len() < 100, "{of_caller:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_the_quarantine_is_recorded_before_it_marks_callbacks_as_reviewed() {
    let audited = Audited::start(|setup, _| setup).await;
    let mut operator = OperatorServiceClient::new(audited.connect("jwt-admin").await);
    let request = ListQuarantinedCallbacksRequest::default();
    in_time(operator.list_quarantined_callbacks(request)).await.expect("OK");
    let wanted = json!({ "action": "list_quarantined_callbacks", "caller": "admin" });
    let records = audited.wait_for(2, &wanted).await;
    assert_eq!(
        (&records[0]["event"], &records[1]["event"]),
        (&json!("call_started"), &json!("call"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_call_whose_client_leaves_has_the_id_of_its_change() {
    let audited = Audited::start(|setup, _| setup).await;
    let mut held = audited.thingspace.hold(CallKind::Change);
    let mut client = GatewayServiceClient::new(audited.connect("jwt-fleet").await);
    let request = change_esim(ACCOUNT_A.into());
    let call = tokio::spawn(async move { client.change_esim_plan(request).await });
    held.arrived().await;
    call.abort();
    let records = audited.wait_for(1, &json!({ "event": "call", "method": CHANGE })).await;
    let [ended] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!((&ended["code"], &ended["executed"]), (&json!("CANCELLED"), &json!("UNKNOWN")));
    assert!(ended["change_id"].is_string(), "{ended}");
    held.release(FakeResponse::HangUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_not_sent_while_the_audit_log_cannot_be_written() {
    let (log_directory, journal) = (TestDir::new(), TestDir::new());
    let disk = FaultyDisk::new(log_directory.path());
    let log = log_directory.join("audit.log");
    let audited = Audited::start(|setup, _| {
        let setup = setup.set("journal.dir", journal.path().to_str().unwrap());
        disk.attach(setup.set("audit.file", log.to_str().unwrap()))
    })
    .await;
    let fleet = audited.connect("jwt-fleet").await;
    let mut client = GatewayServiceClient::new(fleet.clone());
    in_time(client.change_esim_plan(change_esim(ACCOUNT_A.into()))).await.expect("OK");
    assert_eq!(audited.thingspace.posts(), 1);

    disk.fill_entirely();
    let request = change_esim(ACCOUNT_A.into());
    let status = in_time(client.change_esim_plan(request.clone())).await.unwrap_err();
    let expected = (Code::Unavailable, "AUDIT_UNAVAILABLE", "LATER", Some("UNKNOWN"));
    assert_eq!(parse_error(&status).summary(), expected);
    // Calls that read go on.
    let mut reader = GatewayServiceClient::new(fleet);
    in_time(reader.get_server_info(GetServerInfoRequest {})).await.unwrap();
    assert_eq!(audited.thingspace.posts(), 1);

    disk.empty();
    eventually("changes are accepted again", async || {
        in_time(client.change_esim_plan(request.clone())).await.is_ok()
    })
    .await;
    assert_eq!(audited.thingspace.posts(), 2);
}
