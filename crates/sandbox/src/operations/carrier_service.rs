//! Behaviour that the plan changes of the `CarrierService` share.

use serde_json::{Value, json};

use crate::{
    clock::format_us_date,
    identifiers::{DeviceId, DeviceIds, find_id},
};

pub(crate) const CALLBACK_SERVICE: &str = "CarrierService";

/// Path of the plan changes. The body selects the operation.
pub(crate) const PLAN_PATH: &str = "/m2m/v1/devices/actions/plan";

/// Returns the identifiers that were sent, and the phone number.
pub(crate) fn callback_device_ids(sent: &DeviceIds, mdn: &str) -> Vec<DeviceId> {
    let mut ids = sent.to_vec();
    if find_id(sent, "mdn").is_none() {
        ids.push(DeviceId::new("mdn", mdn));
    }
    ids
}

pub(crate) fn device_response(_ids: &[DeviceId], received_at_ms: u64) -> Value {
    json!({ "changeServicePlanResponse": { "effectiveDate": format_us_date(received_at_ms) } })
}
