//! What can be looked up besides devices: the account's plans, and what became
//! of a request.

use serde_json::{Value, json};

use crate::errors::{ValidationError, code};
use crate::json_body::{self, OperationKind};
use crate::ledger::{DeviceChange, DeviceStatus};
use crate::platform::Platform;

/// Name, code, the carrier's own code and the size in kB: name and code differ,
/// as in the page's example, which is the first of them.
const PLANS: [(&str, &str, &str, u64); 4] = [
    ("2MSHR5GB", "M2MSHR5GB", "84638", 0),
    ("Sandbox 5G Business 100", "SBX5GBI100", "90100", 0),
    ("Sandbox 5G Business 400", "SBX5GBI400", "90400", 0),
    ("Sandbox eSIM 1 GB", "SBXESIM1GB", "91001", 1_048_576),
];

/// `GET /m2m/v1/plans/{account}`. Changes are not held to this list: every plan
/// exists in the sandbox.
pub(crate) fn plans(account: &str) -> Result<Value, ValidationError> {
    json_body::check_account(account)?;
    let plan = |(name, code, carrier, size): &(&str, &str, &str, u64)| {
        json!({
            "name": name,
            "code": code,
            "sizeKb": size,
            "carrierServicePlanCode": carrier,
            "extendedAttributes": [],
        })
    };
    Ok(PLANS.iter().map(plan).collect())
}

/// `GET /m2m/v1/accounts/{account}/requests/{request}/status`. The page covers
/// provisioning of a single device only (Activate, Deactivate, Suspend, Resume):
/// no plan change, and so nothing that is asked of this sandbox.
pub(crate) fn status_v1(account: &str) -> Result<Value, ValidationError> {
    json_body::check_account(account)?;
    Err(ValidationError::new(
        code::UNEXPECTED,
        "The status of this request is not available",
    ))
}

/// `GET /m2m/v2/accounts/{account}/requests/{request}/status`: for eSIM requests
/// only, device by device.
pub(crate) fn status_v2(
    platform: &Platform,
    account: &str,
    request_id: &str,
) -> Result<Value, ValidationError> {
    json_body::check_account(account)?;
    let found = platform.ledger().find_change(request_id);
    let of_esim = found.filter(|(change, _)| {
        change.operation == OperationKind::EsimPlan && *change.account == *account
    });
    let Some((change, Some(subjects))) = of_esim else {
        return Err(ValidationError::new(
            code::UNEXPECTED,
            "The status of this request is not available",
        ));
    };
    let outcomes: Vec<DeviceStatus> = subjects.iter().map(|one| one.progress().status).collect();
    let one = |(subject, outcome): (&DeviceChange, &DeviceStatus)| json!({ "ids": &*subject.sent, "status": status_name(*outcome) });
    let each: Vec<Value> = subjects.iter().zip(&outcomes).map(one).collect();
    Ok(json!({
        "requestId": change.request_id,
        "status": status_name(aggregate_status(&outcomes)),
        "subRequests": each,
    }))
}

/// What a request came to of which each device came to these. One that failed
/// makes it `Failed`: the pages do not say.
fn aggregate_status(outcomes: &[DeviceStatus]) -> DeviceStatus {
    let any = |outcome| outcomes.contains(&outcome);
    if any(DeviceStatus::Pending) {
        DeviceStatus::Pending
    } else if any(DeviceStatus::Failed) {
        DeviceStatus::Failed
    } else {
        DeviceStatus::Succeeded
    }
}

/// The page's words; an SDK has `Failure` for one of them.
fn status_name(outcome: DeviceStatus) -> &'static str {
    match outcome {
        DeviceStatus::Pending => "Pending",
        DeviceStatus::Succeeded => "Success",
        DeviceStatus::Failed => "Failed",
    }
}
