//! The bodies of callbacks, member for member as the platform's pages show them,
//! and the shapes in which they were seen besides.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use crate::callback_faults::{self, CallbackFault};
use crate::device_outcome::{CallbackFormat, DeviceResult, InterimCallback};
use crate::identifiers::{self, DeviceIds};
use crate::json_body::OperationKind;
use crate::ledger::{DeviceChange, ExecutedChange};
use crate::listeners::CallbackListener;

/// How often a callback is sent at most (ThingSpace, About Callback Services).
pub(crate) const MAX_CALLBACK_COUNT: u32 = 4;

/// One identifier as a callback names it.
#[derive(Serialize)]
struct CallbackDeviceId<'d> {
    id: Cow<'d, str>,
    kind: &'d str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallbackBody<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'m str>,
    device_ids: &'m [CallbackDeviceId<'m>],
    #[serde(skip_serializing_if = "Option::is_none")]
    device_response: Option<OneOrList<DeviceResponse<'m>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_response: Option<FaultResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_count: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_callback_threshold: Option<Count>,
}

/// The examples show an object, the tables say array.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrList<T> {
    One(T),
    List([T; 1]),
}

/// The examples show a number, the tables say string.
struct Count {
    number: u32,
    as_text: bool,
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.as_text {
            return serializer.collect_str(&self.number);
        }
        serializer.serialize_u32(self.number)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum DeviceResponse<'m> {
    #[serde(rename_all = "camelCase")]
    DeviceProfileResponse {
        device_identifier_collection: &'m [CallbackDeviceId<'m>],
        state: &'static str,
        profile_status: &'static str,
        profile_role: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    ChangeServicePlanResponse { effective_date: String },
}

#[derive(Serialize)]
struct FaultResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    faultactor: Option<&'static str>,
    faultcode: &'static str,
    faultstring: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

/// What a callback says of its device.
struct CallbackResult {
    succeeded: bool,
    fault: Option<&'static CallbackFault>,
    status: Option<&'static str>,
}

/// Writes the callback about one device: an interim one, or the final one.
pub(crate) fn encode(
    change: &ExecutedChange,
    subject: &DeviceChange,
    interim: Option<InterimCallback>,
    listener: &CallbackListener,
    count: u32,
) -> Result<Vec<u8>, serde_json::Error> {
    let shape = match interim {
        Some(_) => CallbackFormat::Normal,
        None => subject.planned_outcome.format,
    };
    let said = match interim {
        Some(interim) => interim_result(interim),
        None => final_result(change.operation, subject.planned_outcome.result, shape),
    };
    let mdn = &*subject.record.mdn;
    let named = match change.operation {
        _ if shape == CallbackFormat::MdnOnly => vec![device_id(mdn, "mdn")],
        OperationKind::EsimPlan => esim_device_ids(&subject.sent, mdn),
        OperationKind::FiveGBiPlan => five_g_device_ids(&subject.sent, mdn),
    };
    // A listener that was registered with one of the two gets both members.
    let login = listener.username.is_some() || listener.password.is_some();
    let text = |value: &'_ Option<String>| login.then(|| value.clone().unwrap_or_default());
    let (username, password) = (text(&listener.username), text(&listener.password));
    // The 5G page's sample of a success has neither a status nor counts.
    let plain = said.succeeded && change.operation == OperationKind::FiveGBiPlan;
    let as_text = shape == CallbackFormat::CountsAsStrings;
    let counted = |number| (!plain || as_text).then_some(Count { number, as_text });
    let old = shape == CallbackFormat::FaultWithDetail;
    // A failure without a fault still has the payload of its operation.
    let has_response = said.succeeded || (interim.is_none() && said.fault.is_none());
    let response = has_response.then(|| response(change, &named));
    let message = CallbackBody {
        username: username.as_deref(),
        password: password.as_deref(),
        request_id: (shape != CallbackFormat::NoRequestId).then_some(&change.request_id),
        device_ids: &named,
        device_response: response.map(|response| match shape {
            CallbackFormat::ResponseArray => OneOrList::List([response]),
            _ => OneOrList::One(response),
        }),
        fault_response: said.fault.map(|fault| FaultResponse {
            faultactor: old.then_some("UnifiedWebService"),
            faultcode: fault.code,
            faultstring: fault.text,
            detail: old.then_some("No more is known"),
        }),
        status: said.status,
        callback_count: counted(count),
        max_callback_threshold: counted(MAX_CALLBACK_COUNT),
    };
    let mut body = serde_json::to_vec(&message)?;
    match shape {
        CallbackFormat::Truncated => body.truncate(body.len() * 3 / 5),
        CallbackFormat::NoOpeningBrace => drop(body.drain(..1)),
        _ => {}
    }
    Ok(body)
}

fn final_result(
    kind: OperationKind,
    ending: DeviceResult,
    shape: CallbackFormat,
) -> CallbackResult {
    let status = match (ending, kind) {
        _ if shape == CallbackFormat::NoStatus => None,
        (DeviceResult::Failed(_), _) => Some("Failed"),
        (DeviceResult::Succeeded, OperationKind::EsimPlan) => Some("SUCCESS"),
        (DeviceResult::Succeeded, OperationKind::FiveGBiPlan) => None,
    };
    let fault = match ending {
        DeviceResult::Failed(fault) if shape != CallbackFormat::NoFault => Some(fault),
        _ => None,
    };
    CallbackResult {
        succeeded: ending == DeviceResult::Succeeded,
        fault,
        status,
    }
}

/// The word `warning` is the pages'; what a request on hold says as its status
/// is told nowhere, and `Pending` is what a request status calls it.
fn interim_result(interim: InterimCallback) -> CallbackResult {
    let (fault, status) = match interim {
        InterimCallback::Warning => (None, "warning"),
        InterimCallback::OnHold => (Some(&callback_faults::ON_HOLD), "Pending"),
    };
    CallbackResult {
        succeeded: false,
        fault,
        status: Some(status),
    }
}

fn response<'m>(change: &ExecutedChange, named: &'m [CallbackDeviceId<'m>]) -> DeviceResponse<'m> {
    match change.operation {
        OperationKind::EsimPlan => DeviceResponse::DeviceProfileResponse {
            device_identifier_collection: named,
            state: "ACTIVE",
            profile_status: "ENABLE",
            profile_role: "LOCAL",
        },
        OperationKind::FiveGBiPlan => DeviceResponse::ChangeServicePlanResponse {
            effective_date: format_us_date(change.received_at_ms),
        },
    }
}

/// The four kinds of the eSIM page, in its order and its mixed case.
fn esim_device_ids<'d>(device: &'d DeviceIds, mdn: &str) -> Vec<CallbackDeviceId<'d>> {
    let eid = identifiers::find_id(device, "eid").unwrap_or_default();
    let iccid = identifiers::find_id(device, "iccid").unwrap_or_default();
    let phone = format!("1{mdn}");
    vec![
        device_id(eid, "Eid"),
        device_id(identifiers::derive_imei(eid), "Imei"),
        device_id(phone, "msisdn"),
        device_id(iccid, "Iccid"),
    ]
}

/// The kinds that were sent, and the phone number.
fn five_g_device_ids<'d>(device: &'d DeviceIds, mdn: &'d str) -> Vec<CallbackDeviceId<'d>> {
    let mut names: Vec<_> = device
        .iter()
        .map(|one| device_id(&*one.id, &one.kind))
        .collect();
    if identifiers::find_id(device, "mdn").is_none() {
        names.push(device_id(mdn, "mdn"));
    }
    names
}

fn device_id<'d>(id: impl Into<Cow<'d, str>>, kind: &'d str) -> CallbackDeviceId<'d> {
    CallbackDeviceId {
        id: id.into(),
        kind,
    }
}

/// The start of the day in the platform's US style: `5/31/2018 12:00:00 AM`.
pub(crate) fn format_us_date(unix_ms: u64) -> String {
    let (year, month, day) = civil_from_days(unix_ms / 86_400_000);
    format!("{month}/{day}/{year} 12:00:00 AM")
}

/// Days since 1970 as year, month and day. Years begin in March here, so that
/// the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
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
    use super::format_us_date;

    #[test]
    fn effective_dates_are_us_style_without_leading_zeros() {
        assert_eq!(format_us_date(0), "1/1/1970 12:00:00 AM");
        assert_eq!(format_us_date(1_527_768_000_000), "5/31/2018 12:00:00 AM");
        assert_eq!(format_us_date(1_709_164_800_000), "2/29/2024 12:00:00 AM");
    }
}
