//! `POST /m2m/v1/devices/actions/list`: one device by an identifier, or the
//! devices of an account on a plan, page by page.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::callback::body::format_us_date;
use crate::callback_faults;
use crate::device_outcome::DeviceResult;
use crate::devices::{DeviceAttributes, DeviceRecord};
use crate::errors::{ValidationError, code};
use crate::identifiers::{self, DeviceId, DeviceIds};
use crate::json_body::{self, OperationKind};
use crate::platform::Platform;
use crate::scenario;

/// Devices of one page (ThingSpace, Retrieve Device Information page).
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
    // Filters that the page has too. To ignore one would answer another question.
    group_name: Option<IgnoredAny>,
    current_state: Option<IgnoredAny>,
    custom_fields: Option<IgnoredAny>,
    earliest: Option<IgnoredAny>,
    latest: Option<IgnoredAny>,
    filter: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct DeviceIdBody<'b> {
    id: Option<&'b str>,
    kind: Option<&'b str>,
}

/// Answers a list request.
pub(crate) fn list(platform: &Platform, body: &[u8]) -> Result<Value, ValidationError> {
    json_body::check_characters(body)?;
    let request: ListRequest<'_> = json_body::parse_json(body)?;
    request
        .account_name
        .map_or(Ok(()), json_body::check_account)?;
    request.check_filters()?;
    let (devices, more) = match &request.device_id {
        Some(wire) => (vec![one(platform, &request, wire)?], false),
        None => page(platform, &request)?,
    };
    Ok(json!({ "hasMoreData": more, "devices": devices }))
}

impl ListRequest<'_> {
    fn check_filters(&self) -> Result<(), ValidationError> {
        let unknown = [
            &self.group_name,
            &self.current_state,
            &self.custom_fields,
            &self.earliest,
            &self.latest,
            &self.filter,
        ];
        if unknown.iter().any(|filter| filter.is_some()) {
            return Err(ValidationError::new(
                code::REQUEST_UNDEFINED,
                "The sandbox knows deviceId, accountName and servicePlan only",
            ));
        }
        Ok(())
    }
}

/// Every device exists, but the ones whose scenario says otherwise.
fn one(
    platform: &Platform,
    request: &ListRequest<'_>,
    wire: &DeviceIdBody<'_>,
) -> Result<Value, ValidationError> {
    let kind = json_body::required(wire.kind, "kind")?;
    let id = json_body::required(wire.id, "id")?;
    identifiers::validate(kind, id)?;
    let device: DeviceIds = Arc::new([DeviceId {
        id: id.into(),
        kind: kind.into(),
    }]);
    if scenario_fails_with(&device, &callback_faults::DEVICE_NOT_FOUND) {
        return Err(not_found());
    }
    if let Some(record) = platform.devices().find(kind, id).first() {
        let known = record.attributes().clone();
        let elsewhere = |account| known.account.as_deref() != Some(account);
        if known.account.is_some() && request.account_name.is_some_and(elsewhere) {
            return Err(not_found());
        }
        return Ok(written(
            platform,
            request,
            record.number,
            &record.mdn,
            &known,
        ));
    }
    let mdn = identifiers::device_mdn(&device);
    let known = DeviceAttributes {
        ids: device,
        ..DeviceAttributes::default()
    };
    Ok(written(platform, request, 0, &mdn, &known))
}

fn not_found() -> ValidationError {
    ValidationError::new(code::DEVICE_NOT_FOUND, "The device could not be found")
}

/// Only devices that a change was executed for are in an account; and on a plan those that are on any.
fn page(
    platform: &Platform,
    request: &ListRequest<'_>,
) -> Result<(Vec<Value>, bool), ValidationError> {
    let account = match request.account_name {
        Some(account) => account.to_owned(),
        None => platform.registrations().only_account()?,
    };
    let limit = request.max_number_of_devices.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ValidationError::new(
            code::REQUEST_UNDEFINED,
            "maxNumberOfDevices must be between 1 and 2000",
        ));
    }
    let initial = &*platform.settings.initial_plan;
    let fits = |known: &DeviceAttributes| {
        let plan = known.plan.as_deref().unwrap_or(initial);
        if known.is_preloaded {
            return request.service_plan.is_some_and(|asked| asked != initial);
        }
        known.account.as_deref() == Some(&*account)
            && request.service_plan.is_none_or(|asked| asked == plan)
    };
    let above = request.largest_device_id_seen.unwrap_or(0);
    let (records, more) = platform.devices().page(above, limit, fits);
    let write = |record: &Arc<DeviceRecord>| {
        let known = record.attributes().clone();
        written(platform, request, record.number, &record.mdn, &known)
    };
    Ok((records.iter().map(write).collect(), more))
}

/// A device member for member as the page shows it. The plan is spelled as the
/// change spelled it. The next page is asked for with the last `DeviceId` among
/// the extended attributes (F-ALTA).
fn written(
    platform: &Platform,
    request: &ListRequest<'_>,
    number: u64,
    mdn: &str,
    known: &DeviceAttributes,
) -> Value {
    let id = |one: &DeviceId| json!({ "id": one.id, "kind": one.kind.to_ascii_lowercase() });
    let mut ids: Vec<Value> = known.ids.iter().map(id).collect();
    if !known.ids.iter().any(|one| one.has_kind("mdn")) {
        ids.push(json!({ "id": mdn, "kind": "mdn" }));
    }
    let account = known.account.as_deref().or(request.account_name);
    let plan = request.service_plan.filter(|_| known.is_preloaded);
    let plan = plan.or(known.plan.as_deref());
    let suspended = scenario_fails_with(&known.ids, &callback_faults::SUSPENDED);
    let today = format_us_date(platform.now_ms());
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
        "extendedAttributes": [ { "key": "DeviceId", "value": number.to_string() } ],
        "groupNames": [ "Default" ],
        "ipAddress": "0.0.0.0",
        "lastActivationBy": "sandbox",
        "lastActivationDate": today,
        "lastConnectionDate": today,
    })
}

/// Whether a device's scenario, whatever the change, ends with this fault.
fn scenario_fails_with(ids: &[DeviceId], fault: &'static callback_faults::CallbackFault) -> bool {
    let hit = scenario::match_device(OperationKind::FiveGBiPlan, ids);
    hit.and_then(|hit| hit.scenario.device_outcome())
        .is_some_and(|fate| fate.result == DeviceResult::Failed(fault))
}
