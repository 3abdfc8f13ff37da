//! What clients and ThingSpace send, and how to read what comes back.

use std::collections::HashMap;

use prost::Message as _;
use serde_json::{Value, json};
use thingspace_gateway::proto::{
    self, Address, Change, ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, ChangeState,
    CustomerName, DeviceId, DeviceResult, EsimDevice, FiveGBiDevice, GetChangeRequest, Outcome,
    PrimaryPlaceOfUse, Until, WatchRequestRequest, WatchRequestResponse,
    watch_request_response::Event,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};
use tonic_types::pb;

use super::gateway::{Client, PATIENCE};
pub use super::sender::{eid, iccid};

pub const ACCOUNT: &str = "0000123456-00001";
pub const ESIM_PLAN: &str = "service plan name";
pub const FIVE_G_BI_PLAN: &str = "Name of the plan being changed to";

// --- Devices --------------------------------------------------------------

pub fn meid(number: usize) -> String {
    format!("A10000{number:08X}")
}

pub fn id(kind: &str, id: impl Into<String>) -> DeviceId {
    DeviceId {
        kind: kind.into(),
        id: id.into(),
    }
}

/// Names and places that no other text of a test has.
pub const PERSONAL: [&str; 5] = [
    "14 Wexcombe Crossing",
    "Quagga Annex",
    "Ogdenquist",
    "Zebedee",
    "Quillfeather",
];

pub fn place() -> PrimaryPlaceOfUse {
    let [line1, line2, city, first, last] = PERSONAL.map(String::from);
    PrimaryPlaceOfUse {
        address: Some(Address {
            address_line1: line1,
            address_line2: line2,
            city,
            state: "TX".into(),
            zip: "78660".into(),
            zip4: String::new(),
            country: "US".into(),
        }),
        customer_name: Some(CustomerName {
            first_name: first,
            last_name: last,
            ..CustomerName::default()
        }),
    }
}

// --- Changes --------------------------------------------------------------

/// A change of these profiles' plan.
pub fn esim(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeEsimPlanRequest {
    let devices = numbers.into_iter().map(|number| EsimDevice {
        eid: eid(number),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    });
    ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: ESIM_PLAN.into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// A change of these 5G devices' plan.
pub fn five_g_bi(key: &str, numbers: impl IntoIterator<Item = usize>) -> ChangeFiveGBiPlanRequest {
    let devices = numbers.into_iter().map(|number| FiveGBiDevice {
        device_ids: vec![id("meid", meid(number))],
        primary_place_of_use: Some(place()),
        client_reference: format!("row-{number}"),
    });
    ChangeFiveGBiPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: FIVE_G_BI_PLAN.into(),
        current_service_plan: "Name of the plan being changed from".into(),
        devices: devices.collect(),
        idempotency_key: key.into(),
        validate_only: false,
        client_reference: "job-7".into(),
    }
}

/// Makes an eSIM change, which is expected to be OK.
pub async fn change_esim(client: &mut Client, request: ChangeEsimPlanRequest) -> Change {
    let answer = timeout(PATIENCE, client.change_esim_plan(request)).await;
    let answer = answer.expect("in time").expect("OK").into_inner();
    answer.change.expect("a change")
}

/// Makes an eSIM change, which is expected to fail.
pub async fn refuse_esim(client: &mut Client, request: ChangeEsimPlanRequest) -> Status {
    let answer = timeout(PATIENCE, client.change_esim_plan(request)).await;
    answer.expect("in time").expect_err("no OK")
}

/// Makes a 5G BI change, which is expected to be OK.
pub async fn change_five_g_bi(client: &mut Client, request: ChangeFiveGBiPlanRequest) -> Change {
    let answer = timeout(PATIENCE, client.change_five_g_bi_plan(request)).await;
    let answer = answer.expect("in time").expect("OK").into_inner();
    answer.change.expect("a change")
}

/// The change of that key.
pub async fn get_by_key(client: &mut Client, key: &str) -> Result<Change, Status> {
    let request = GetChangeRequest {
        account_name: ACCOUNT.into(),
        idempotency_key: key.into(),
        ..GetChangeRequest::default()
    };
    let answer = client.get_change(request).await?.into_inner();
    Ok(answer.change.expect("a change"))
}

// --- Callbacks ------------------------------------------------------------

/// The callback of one profile, as in ThingSpace's own example.
pub fn esim_callback(request_id: &str, number: usize) -> Value {
    let ids = json!([
        {"id": eid(number), "kind": "Eid"},
        {"id": format!("99000000{number:07}"), "kind": "Imei"},
        {"id": format!("1512{number:07}"), "kind": "msisdn"},
        {"id": iccid(number), "kind": "Iccid"},
    ]);
    json!({
        "requestId": request_id,
        "deviceIds": ids,
        "deviceResponse": {
            "deviceProfileResponse": {
                "deviceIdentifierCollection": ids,
                "state": "ACTIVE",
                "profileStatus": "ENABLE",
                "profileRole": "LOCAL",
            },
        },
        "status": "SUCCESS",
        "callbackCount": 1,
        "maxCallbackThreshold": 4,
    })
}

/// The callback of one profile whose change failed.
pub fn esim_failure(request_id: &str, number: usize) -> Value {
    json!({
        "requestId": request_id,
        "deviceIds": [{"id": iccid(number), "kind": "Iccid"}],
        "faultResponse": {
            "faultcode": "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
            "faultstring": "The device cannot be found.",
        },
        "status": "Failed",
    })
}

/// The callback of one 5G device, as in ThingSpace's own example: another kind
/// of identifier than was sent.
pub fn five_g_bi_callback(request_id: &str, mdn: &str) -> Value {
    json!({
        "username": "planted-callback-username",
        "password": "planted-callback-password",
        "requestId": request_id,
        "deviceIds": [{"id": mdn, "kind": "mdn"}],
        "deviceResponse": {
            "changeServicePlanResponse": {"effectiveDate": "5/31/2018 12:00:00 AM"},
        },
    })
}

/// Posts a callback; answers with status and body.
pub async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = client.expect("a client");
    let sent = client
        .post(url)
        .header("content-type", "application/json")
        .body(body)
        .timeout(PATIENCE)
        .send()
        .await;
    let answer = sent.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Posts a callback that is new, and is taken.
pub async fn deliver(url: &str, callback: &Value) {
    let answer = post(url, callback.to_string()).await;
    assert_eq!(answer, (200, json!({"stored": "new"})));
}

// --- Watches --------------------------------------------------------------

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
pub fn stored(request: WatchRequestRequest) -> WatchRequestRequest {
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
pub struct Story {
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
        let opened = timeout(PATIENCE, client.watch_request(request)).await;
        Ok(Self(opened.expect("in time")?.into_inner()))
    }

    /// The next message.
    pub async fn next(&mut self) -> WatchRequestResponse {
        let message = timeout(PATIENCE, self.0.message()).await;
        let message = message.expect("a message in time").expect("no error");
        message.expect("no end")
    }

    /// All messages up to the one of which this is the short form.
    pub async fn up_to(&mut self, last: &str) -> Vec<WatchRequestResponse> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let is_last = short(&message) == last;
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// All messages to the end.
    pub async fn rest(mut self) -> Story {
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
        let end = timeout(PATIENCE, all).await.expect("an end in time");
        Story { messages, end }
    }
}

impl Story {
    /// Opens a watch and reads it to its end.
    pub async fn of(client: &mut Client, request: WatchRequestRequest) -> Self {
        Watch::open(client, request).await.rest().await
    }

    pub fn short(&self) -> Vec<String> {
        assert!(self.end.is_ok(), "{self:?}");
        self.messages.iter().map(short).collect()
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
pub fn short(message: &WatchRequestResponse) -> String {
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

// --- Errors ---------------------------------------------------------------

/// What an error tells.
#[derive(Debug)]
pub struct Told {
    pub code: Code,
    pub reason: String,
    pub metadata: HashMap<String, String>,
    /// Fields that were wrong.
    pub fields: Vec<String>,
    /// Seconds to wait.
    pub retry_after: Option<i64>,
}

/// Reads an error, which has exactly one ErrorInfo that keeps to the contract.
pub fn told(status: &Status) -> Told {
    let details = pb::Status::decode(status.details()).expect("details");
    assert_eq!(details.code, i32::from(status.code()), "{status:?}");
    let infos: Vec<pb::ErrorInfo> = unpack(&details, "google.rpc.ErrorInfo");
    let [info] = infos.as_slice() else {
        panic!("not exactly one ErrorInfo: {status:?}");
    };
    assert_eq!(info.domain, "thingspace.gateway");
    let retry = info.metadata.get("retry").map(String::as_str);
    assert!(
        matches!(retry, Some("NOW" | "LATER" | "NEVER")),
        "{status:?}"
    );
    let violations: Vec<pb::BadRequest> = unpack(&details, "google.rpc.BadRequest");
    let retry_infos: Vec<pb::RetryInfo> = unpack(&details, "google.rpc.RetryInfo");
    Told {
        code: status.code(),
        reason: info.reason.clone(),
        metadata: info.metadata.clone(),
        fields: violations
            .into_iter()
            .flat_map(|bad| bad.field_violations)
            .map(|violation| violation.field)
            .collect(),
        retry_after: retry_infos
            .first()
            .and_then(|info| info.retry_delay)
            .map(|delay| delay.seconds),
    }
}

fn unpack<M: prost::Message + Default>(details: &pb::Status, name: &str) -> Vec<M> {
    let url = format!("type.googleapis.com/{name}");
    let packed = details.details.iter().filter(|any| any.type_url == url);
    packed
        .map(|any| M::decode(any.value.as_slice()).expect(name))
        .collect()
}

impl Told {
    /// Code, reason, when to retry, and what was executed, where it says so.
    pub fn rule(&self) -> (Code, &str, &str, Option<&str>) {
        let get = |name| self.metadata.get(name).map(String::as_str);
        (
            self.code,
            &self.reason,
            get("retry").unwrap_or_default(),
            get("executed"),
        )
    }
}

/// The key of a list of changes.
pub fn change_ids(changes: &[proto::Change]) -> Vec<&str> {
    changes
        .iter()
        .map(|change| change.change_id.as_str())
        .collect()
}
