//! `POST /m2m/v1/devices/actions/list`: one device by an identifier, or the
//! devices of an account on a plan, page by page.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::changes::{self, ChangeKind};
use super::devices::{Known, Record};
use super::errors::{Invalid, code};
use super::fate::Ending;
use super::faults;
use super::identifiers::{self, Device, DeviceId};
use super::message::us_midnight;
use super::platform::Platform;
use super::scenario;

/// Devices of one page (ThingSpace, Retrieve Device Information page).
const MAX_PAGE: usize = 2_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'b> {
    #[serde(borrow)]
    account_name: Option<&'b str>,
    device_id: Option<WireId<'b>>,
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
struct WireId<'b> {
    id: Option<&'b str>,
    kind: Option<&'b str>,
}

/// Answers a list request.
pub(super) fn list(platform: &Platform, body: &[u8]) -> Result<Value, Invalid> {
    changes::check_characters(body)?;
    let asked: Body<'_> = changes::parse(body)?;
    asked.account_name.map_or(Ok(()), changes::check_account)?;
    asked.check_filters()?;
    let (devices, more) = match &asked.device_id {
        Some(wire) => (vec![one(platform, &asked, wire)?], false),
        None => page(platform, &asked)?,
    };
    Ok(json!({ "hasMoreData": more, "devices": devices }))
}

impl Body<'_> {
    fn check_filters(&self) -> Result<(), Invalid> {
        let unknown = [
            &self.group_name,
            &self.current_state,
            &self.custom_fields,
            &self.earliest,
            &self.latest,
            &self.filter,
        ];
        if unknown.iter().any(|filter| filter.is_some()) {
            return Err(Invalid::new(
                code::REQUEST_UNDEFINED,
                "The sandbox knows deviceId, accountName and servicePlan only",
            ));
        }
        Ok(())
    }
}

/// Every device exists, but the ones whose scenario says otherwise.
fn one(platform: &Platform, asked: &Body<'_>, wire: &WireId<'_>) -> Result<Value, Invalid> {
    let kind = changes::required(wire.kind, "kind")?;
    let id = changes::required(wire.id, "id")?;
    identifiers::check(kind, id)?;
    let device: Device = Arc::new([DeviceId {
        id: id.into(),
        kind: kind.into(),
    }]);
    if fails_with(&device, &faults::DEVICE_NOT_FOUND) {
        return Err(not_found());
    }
    if let Some(record) = platform.devices().find(kind, id).first() {
        let known = record.known().clone();
        let elsewhere = |account| known.account.as_deref() != Some(account);
        if known.account.is_some() && asked.account_name.is_some_and(elsewhere) {
            return Err(not_found());
        }
        return Ok(written(platform, asked, record.number, &record.mdn, &known));
    }
    let mdn = identifiers::mdn_of_device(&device);
    let known = Known {
        ids: device,
        ..Known::default()
    };
    Ok(written(platform, asked, 0, &mdn, &known))
}

fn not_found() -> Invalid {
    Invalid::new(code::DEVICE_NOT_FOUND, "The device could not be found")
}

/// Only devices that a change was executed for are in an account; and on a plan those that are on any.
fn page(platform: &Platform, asked: &Body<'_>) -> Result<(Vec<Value>, bool), Invalid> {
    let account = match asked.account_name {
        Some(account) => account.to_owned(),
        None => platform.registrations().only_account()?,
    };
    let most = asked.max_number_of_devices.unwrap_or(MAX_PAGE);
    if !(1..=MAX_PAGE).contains(&most) {
        return Err(Invalid::new(
            code::REQUEST_UNDEFINED,
            "maxNumberOfDevices must be between 1 and 2000",
        ));
    }
    let initial = &*platform.settings.initial_plan;
    let fits = |known: &Known| {
        let plan = known.plan.as_deref().unwrap_or(initial);
        if known.is_resident {
            return asked.service_plan.is_some_and(|asked| asked != initial);
        }
        known.account.as_deref() == Some(&*account)
            && asked.service_plan.is_none_or(|asked| asked == plan)
    };
    let above = asked.largest_device_id_seen.unwrap_or(0);
    let (records, more) = platform.devices().page(above, most, fits);
    let write = |record: &Arc<Record>| {
        let known = record.known().clone();
        written(platform, asked, record.number, &record.mdn, &known)
    };
    Ok((records.iter().map(write).collect(), more))
}

/// A device member for member as the page shows it. The plan is spelled as the
/// change spelled it. The next page is asked for with the last `DeviceId` among
/// the extended attributes (F-ALTA).
fn written(platform: &Platform, asked: &Body<'_>, number: u64, mdn: &str, known: &Known) -> Value {
    let id = |one: &DeviceId| json!({ "id": one.id, "kind": one.kind.to_ascii_lowercase() });
    let mut ids: Vec<Value> = known.ids.iter().map(id).collect();
    if !known.ids.iter().any(|one| one.is("mdn")) {
        ids.push(json!({ "id": mdn, "kind": "mdn" }));
    }
    let account = known.account.as_deref().or(asked.account_name);
    let plan = asked.service_plan.filter(|_| known.is_resident);
    let plan = plan.or(known.plan.as_deref());
    let suspended = fails_with(&known.ids, &faults::SUSPENDED);
    let today = us_midnight(platform.now_ms());
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
fn fails_with(ids: &[DeviceId], fault: &'static faults::Fault) -> bool {
    let hit = scenario::of(ChangeKind::FiveGBi, ids);
    hit.and_then(|hit| hit.scenario.fate())
        .is_some_and(|fate| fate.ending == Ending::Fails(fault))
}
