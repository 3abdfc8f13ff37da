//! The bodies of callbacks, member for member as the platform's pages show them.

use serde::Serialize;

use super::callbacks::Listener;
use super::changes::ChangeKind;
use super::fate::Fault;
use super::identifiers::{self, Device};
use super::ledger::Change;

/// How often a callback is sent at most (ThingSpace, About Callback Services).
pub(super) const MAX_SENDS: u32 = 4;

/// One identifier as a callback names it.
#[derive(Serialize)]
struct Named<'d> {
    id: std::borrow::Cow<'d, str>,
    kind: &'d str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'m str>,
    request_id: &'m str,
    device_ids: &'m [Named<'m>],
    #[serde(skip_serializing_if = "Option::is_none")]
    device_response: Option<DeviceResponse<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_response: Option<FaultResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_callback_threshold: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum DeviceResponse<'m> {
    #[serde(rename_all = "camelCase")]
    DeviceProfileResponse {
        device_identifier_collection: &'m [Named<'m>],
        state: &'static str,
        profile_status: &'static str,
        profile_role: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    ChangeServicePlanResponse { effective_date: String },
}

#[derive(Serialize)]
struct FaultResponse {
    faultcode: &'static str,
    faultstring: &'static str,
}

/// Writes the callback about one device.
pub(super) fn write(
    change: &Change,
    device: &Device,
    fault: Option<&Fault>,
    listener: &Listener,
    count: u32,
) -> Result<Vec<u8>, serde_json::Error> {
    let named = match change.kind {
        ChangeKind::Esim => esim_names(device),
        ChangeKind::FiveGBi => five_g_names(device),
    };
    // A listener that was registered with one of the two gets both members.
    let login = listener.username.is_some() || listener.password.is_some();
    let text = |value: &'_ Option<String>| login.then(|| value.clone().unwrap_or_default());
    let (username, password) = (text(&listener.username), text(&listener.password));
    // The 5G page's sample of a success has neither a status nor counts.
    let counted = fault.is_some() || change.kind == ChangeKind::Esim;
    let message = Message {
        username: username.as_deref(),
        password: password.as_deref(),
        request_id: &change.request_id,
        device_ids: &named,
        device_response: fault.is_none().then(|| response(change, &named)),
        fault_response: fault.map(|fault| FaultResponse {
            faultcode: fault.code,
            faultstring: fault.text,
        }),
        status: match (fault, change.kind) {
            (Some(_), _) => Some("Failed"),
            (None, ChangeKind::Esim) => Some("SUCCESS"),
            (None, ChangeKind::FiveGBi) => None,
        },
        callback_count: counted.then_some(count),
        max_callback_threshold: counted.then_some(MAX_SENDS),
    };
    serde_json::to_vec(&message)
}

fn response<'m>(change: &Change, named: &'m [Named<'m>]) -> DeviceResponse<'m> {
    match change.kind {
        ChangeKind::Esim => DeviceResponse::DeviceProfileResponse {
            device_identifier_collection: named,
            state: "ACTIVE",
            profile_status: "ENABLE",
            profile_role: "LOCAL",
        },
        ChangeKind::FiveGBi => DeviceResponse::ChangeServicePlanResponse {
            effective_date: us_midnight(change.received_at_ms),
        },
    }
}

/// The four kinds of the eSIM page, in its order and its mixed case.
fn esim_names(device: &Device) -> Vec<Named<'_>> {
    let eid = identifiers::find(device, "eid").unwrap_or_default();
    let iccid = identifiers::find(device, "iccid").unwrap_or_default();
    let phone = format!("1{}", identifiers::mdn_of(iccid));
    vec![
        named(eid, "Eid"),
        named(identifiers::imei_of(eid), "Imei"),
        named(phone, "msisdn"),
        named(iccid, "Iccid"),
    ]
}

/// The kinds that were sent, and the phone number.
fn five_g_names(device: &Device) -> Vec<Named<'_>> {
    let mut names: Vec<_> = device
        .iter()
        .map(|one| named(&*one.id, &one.kind))
        .collect();
    if identifiers::find(device, "mdn").is_none() {
        names.push(named(identifiers::mdn_of_device(device), "mdn"));
    }
    names
}

fn named<'d>(id: impl Into<std::borrow::Cow<'d, str>>, kind: &'d str) -> Named<'d> {
    Named {
        id: id.into(),
        kind,
    }
}

/// The start of the day in the platform's US style: `5/31/2018 12:00:00 AM`.
fn us_midnight(unix_ms: u64) -> String {
    let (year, month, day) = civil(unix_ms / 86_400_000);
    format!("{month}/{day}/{year} 12:00:00 AM")
}

/// Days since 1970 as year, month and day. Years begin in March here, so that
/// the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::us_midnight;

    #[test]
    fn effective_dates_are_us_style_without_leading_zeros() {
        assert_eq!(us_midnight(0), "1/1/1970 12:00:00 AM");
        assert_eq!(us_midnight(1_527_768_000_000), "5/31/2018 12:00:00 AM");
        assert_eq!(us_midnight(1_709_164_800_000), "2/29/2024 12:00:00 AM");
    }
}
