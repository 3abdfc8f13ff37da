//! What can be looked up besides devices: the account's plans, and what became
//! of a request.

use serde_json::{Value, json};

use super::changes::{self, ChangeKind};
use super::errors::{Invalid, code};
use super::ledger::{Outcome, Subject};
use super::platform::Platform;

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
pub(super) fn plans(account: &str) -> Result<Value, Invalid> {
    changes::check_account(account)?;
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
pub(super) fn status_v1(account: &str) -> Result<Value, Invalid> {
    changes::check_account(account)?;
    Err(Invalid::new(
        code::UNEXPECTED,
        "The status of this request is not available",
    ))
}

/// `GET /m2m/v2/accounts/{account}/requests/{request}/status`: for eSIM requests
/// only, device by device.
pub(super) fn status_v2(
    platform: &Platform,
    account: &str,
    request_id: &str,
) -> Result<Value, Invalid> {
    changes::check_account(account)?;
    let found = platform.ledger().find(request_id);
    let of_esim =
        found.filter(|(change, _)| change.kind == ChangeKind::Esim && *change.account == *account);
    let Some((change, Some(subjects))) = of_esim else {
        return Err(Invalid::new(
            code::UNEXPECTED,
            "The status of this request is not available",
        ));
    };
    let outcomes: Vec<Outcome> = subjects.iter().map(|one| one.told().outcome).collect();
    let one = |(subject, outcome): (&Subject, &Outcome)| json!({ "ids": &*subject.sent, "status": word(*outcome) });
    let each: Vec<Value> = subjects.iter().zip(&outcomes).map(one).collect();
    Ok(json!({
        "requestId": change.request_id,
        "status": word(together(&outcomes)),
        "subRequests": each,
    }))
}

/// What a request came to of which each device came to these. One that failed
/// makes it `Failed`: the pages do not say.
fn together(outcomes: &[Outcome]) -> Outcome {
    let any = |outcome| outcomes.contains(&outcome);
    if any(Outcome::Pending) {
        Outcome::Pending
    } else if any(Outcome::Failed) {
        Outcome::Failed
    } else {
        Outcome::Succeeded
    }
}

/// The page's words; an SDK has `Failure` for one of them.
fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pending => "Pending",
        Outcome::Succeeded => "Success",
        Outcome::Failed => "Failed",
    }
}
