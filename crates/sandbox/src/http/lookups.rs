//! Lookups: plans, the status of a request, and devices.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
};
use serde_json::{Value, json};

use crate::{
    auth::RequestCredentials,
    errors::{ErrorResponse, ok_json},
    faults::{Fault, code},
    http::{
        device_list,
        extract::{self, HandlerResult, PlatformState},
    },
    json_body,
    ledger::{LedgerEntry, entries::DeviceStatus},
    operations::operation::Feature,
    platform::Platform,
};

const NO_STATUS: Fault =
    Fault::new(code::UNEXPECTED, "The status of this request is not available");

/// Lists the plans of an account. Their names and codes differ, as in the example of Verizon's
/// documentation, which is the first. Changes may use other plans.
pub(crate) async fn plans(_: RequestCredentials, Path(account): Path<String>) -> HandlerResult {
    json_body::check_account(&account)?;
    let plan = |name, code, carrier_code, size_kb| {
        json!({
            "name": name,
            "code": code,
            "sizeKb": size_kb,
            "carrierServicePlanCode": carrier_code,
            "extendedAttributes": [],
        })
    };
    Ok(ok_json(&json!([
        plan("2MSHR5GB", "M2MSHR5GB", "84638", 0),
        plan("Sandbox 5G Business 100", "SBX5GBI100", "90100", 0),
        plan("Sandbox 5G Business 400", "SBX5GBI400", "90400", 0),
        plan("Sandbox eSIM 1 GB", "SBXESIM1GB", "91001", 1_048_576),
    ])))
}

pub(crate) async fn devices(
    State(platform): PlatformState,
    _: RequestCredentials,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let body = extract::json_body(&headers, &body)?;
    Ok(ok_json(&device_list::list(&platform, body)?))
}

/// Always fails: the documentation covers only provisioning of a single device, such as activation
/// (see docs/thingspace-facts.md, section 5).
pub(crate) async fn status_v1(
    _: RequestCredentials,
    Path((account, _)): Path<(String, String)>,
) -> Result<(), ErrorResponse> {
    json_body::check_account(&account)?;
    Err(NO_STATUS.into())
}

/// Returns the status of a request and of each device. Its errors have the format of the eSIM
/// services.
pub(crate) async fn status_v2(
    State(platform): PlatformState,
    _: RequestCredentials,
    Path((account, request)): Path<(String, String)>,
) -> HandlerResult {
    Ok(ok_json(
        &status_of(&platform, &account, &request).map_err(ErrorResponse::with_status_as_code)?,
    ))
}

fn status_of(platform: &Platform, account: &str, request_id: &str) -> Result<Value, Fault> {
    json_body::check_account(account)?;
    let stored = platform.ledger.lock().find_change(request_id).filter(|entry| {
        let change = &entry.change;
        change.operation.features.contains(&Feature::StatusV2) && *change.account == *account
    });
    let Some(LedgerEntry { change, devices: Some(devices) }) = stored else {
        return Err(NO_STATUS);
    };
    let statuses: Vec<DeviceStatus> =
        devices.iter().map(|device| device.progress.lock().status).collect();
    let sub_requests: Vec<Value> = devices
        .iter()
        .zip(&statuses)
        .map(|(device, status)| json!({ "ids": &*device.sent, "status": status_name(*status) }))
        .collect();
    // A request has failed if any of its devices has; the documentation does not say.
    let status = [DeviceStatus::Pending, DeviceStatus::Failed]
        .into_iter()
        .find(|status| statuses.contains(status))
        .unwrap_or(DeviceStatus::Succeeded);
    Ok(json!({
        "requestId": change.request_id,
        "status": status_name(status),
        "subRequests": sub_requests,
    }))
}

fn status_name(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Pending => "Pending",
        DeviceStatus::Succeeded => "Success",
        DeviceStatus::Failed => "Failed",
    }
}
