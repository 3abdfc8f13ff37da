//! The device list: one device by an identifier, or the devices of an account, page by page.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{
    clock::{format_us_date, unix_ms},
    devices::{DevicePage, DeviceRecord, DeviceState},
    faults::{self, Fault, code},
    identifiers::{DeviceId, DeviceIdentity, DeviceIds},
    json_body::{self, DeviceIdBody},
    platform::Platform,
    scenario::identifiers::fails_with,
};

/// Maximum number of devices in a page (see docs/thingspace-facts.md, section 5).
const MAX_PAGE: usize = 2_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListRequest<'b> {
    #[serde(borrow)]
    account_name: Option<&'b str>,
    device_id: Option<DeviceIdBody<'b>>,
    service_plan: Option<&'b str>,
    max_number_of_devices: Option<usize>,
    largest_device_id_seen: Option<u64>,
    // Unsupported filters. A list without them would be wrong, so they are rejected.
    group_name: Option<IgnoredAny>,
    current_state: Option<IgnoredAny>,
    custom_fields: Option<IgnoredAny>,
    earliest: Option<IgnoredAny>,
    latest: Option<IgnoredAny>,
    filter: Option<IgnoredAny>,
}

pub(crate) fn list(platform: &Platform, body: &[u8]) -> Result<Value, Fault> {
    let mut request: ListRequest<'_> = json_body::parse_checked(body)?;
    request.account_name.map_or(Ok(()), json_body::check_account)?;
    let unsupported = [
        &request.group_name,
        &request.current_state,
        &request.custom_fields,
        &request.earliest,
        &request.latest,
        &request.filter,
    ];
    if unsupported.iter().any(|filter| filter.is_some()) {
        let message = "The sandbox supports only the filters deviceId, accountName and servicePlan";
        return Err(Fault::new(code::REQUEST_UNDEFINED, message));
    }
    let page = match request.device_id.take() {
        Some(id) => {
            DevicePage { records: vec![find_device(platform, &request, id)?], has_more: false }
        }
        None => list_page(platform, &request)?,
    };
    let devices: Vec<Value> =
        page.records.iter().map(|record| device_json(platform, &request, record)).collect();
    Ok(json!({ "hasMoreData": page.has_more, "devices": devices }))
}

/// Returns one device. Every device exists, unless its scenario says otherwise.
fn find_device(
    platform: &Platform,
    request: &ListRequest<'_>,
    id: DeviceIdBody<'_>,
) -> Result<Arc<DeviceRecord>, Fault> {
    let id = id.into_device_id()?;
    let stored = platform.devices.lock().find(&id.kind, &id.id);
    let ids: DeviceIds = Arc::new([id]);
    if fails_with(&ids, &faults::DEVICE_NOT_FOUND) {
        return Err(faults::DEVICE_NOT_FOUND.clone());
    }
    let record = stored.into_iter().next().unwrap_or_else(|| {
        let mdn = DeviceIdentity::of_line(&ids).mdn.into();
        let state = Mutex::new(DeviceState { ids, ..DeviceState::default() });
        Arc::new(DeviceRecord { mdn, state, ..DeviceRecord::default() })
    });
    let account = record.state.lock().account.clone();
    if let (Some(account), Some(requested)) = (account, request.account_name)
        && *account != *requested
    {
        return Err(faults::DEVICE_NOT_FOUND.clone());
    }
    Ok(record)
}

/// Returns a page of an account's devices. An account contains the devices for which it executed
/// changes. Preloaded devices are in every list of a plan.
fn list_page(platform: &Platform, request: &ListRequest<'_>) -> Result<DevicePage, Fault> {
    let account = match request.account_name {
        Some(account) => account.to_owned(),
        None => platform.registrations.lock().only_account()?,
    };
    let limit = request.max_number_of_devices.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = "maxNumberOfDevices must be between 1 and 2000";
        return Err(Fault::new(code::REQUEST_UNDEFINED, message));
    }
    let initial_plan = &*platform.settings.initial_plan;
    let matches = |state: &DeviceState| {
        if state.is_preloaded {
            return request.service_plan.is_some_and(|plan| plan != initial_plan);
        }
        let plan = state.plan.as_deref().unwrap_or(initial_plan);
        state.account.as_deref() == Some(&*account)
            && request.service_plan.is_none_or(|wanted| wanted == plan)
    };
    let above = request.largest_device_id_seen.unwrap_or(0);
    Ok(platform.devices.lock().page(above, limit, matches))
}

/// Formats a device as in Verizon's documentation. The plan is spelled as in the change. Clients
/// request the next page with the `DeviceId` in the extended attributes.
fn device_json(platform: &Platform, request: &ListRequest<'_>, record: &DeviceRecord) -> Value {
    let state = record.state.lock();
    let id_json = |id: &DeviceId| json!({ "id": id.id, "kind": id.kind.to_ascii_lowercase() });
    let mut ids: Vec<Value> = state.ids.iter().map(id_json).collect();
    if !state.ids.iter().any(|id| id.has_kind("mdn")) {
        ids.push(json!({ "id": record.mdn, "kind": "mdn" }));
    }
    let account = state.account.as_deref().or(request.account_name);
    let plan = match request.service_plan {
        Some(plan) if state.is_preloaded => Some(plan),
        _ => state.plan.as_deref(),
    };
    let suspended = fails_with(&state.ids, &faults::SUSPENDED);
    let today = format_us_date(unix_ms());
    json!({
        "accountName": account.unwrap_or_default(),
        "billingCycleEndDate": today,
        "carrierInformations": [ {
            "carrierName": "Verizon Wireless",
            "servicePlan": plan.unwrap_or(&platform.settings.initial_plan),
            "state": if suspended { "suspend" } else { "active" },
        } ],
        "connected": false,
        "createdAt": today,
        "customFields": [],
        "deviceIds": ids,
        "extendedAttributes": [ { "key": "DeviceId", "value": record.number.to_string() } ],
        "groupNames": [ "Default" ],
        "ipAddress": "0.0.0.0",
        "lastActivationBy": "sandbox",
        "lastActivationDate": today,
        "lastConnectionDate": today,
    })
}
