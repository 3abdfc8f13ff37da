//! The bodies of callbacks, member for member as the platform's pages show them,
//! and the shapes in which they were seen besides.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::callbacks::Listener;
use super::changes::ChangeKind;
use super::fate::{Ending, Interim, Shape};
use super::faults::{self, Fault};
use super::identifiers::{self, Device};
use super::ledger::{Change, Subject};

/// How often a callback is sent at most (ThingSpace, About Callback Services).
pub(super) const MAX_SENDS: u32 = 4;

/// One identifier as a callback names it.
#[derive(Serialize)]
struct Named<'d> {
    id: Cow<'d, str>,
    kind: &'d str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'m str>,
    device_ids: &'m [Named<'m>],
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
    #[serde(skip_serializing_if = "Option::is_none")]
    faultactor: Option<&'static str>,
    faultcode: &'static str,
    faultstring: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'static str>,
}

/// What a callback says of its device.
struct Said {
    succeeded: bool,
    fault: Option<&'static Fault>,
    status: Option<&'static str>,
}

/// Writes the callback about one device: an interim one, or the final one.
pub(super) fn write(
    change: &Change,
    subject: &Subject,
    interim: Option<Interim>,
    listener: &Listener,
    count: u32,
) -> Result<Vec<u8>, serde_json::Error> {
    let shape = match interim {
        Some(_) => Shape::Usual,
        None => subject.fate.shape,
    };
    let said = match interim {
        Some(interim) => say_interim(interim),
        None => say(change.kind, subject.fate.ending, shape),
    };
    let mdn = &*subject.record.mdn;
    let named = match change.kind {
        _ if shape == Shape::MdnOnly => vec![named(mdn, "mdn")],
        ChangeKind::Esim => esim_names(&subject.sent, mdn),
        ChangeKind::FiveGBi => five_g_names(&subject.sent, mdn),
    };
    // A listener that was registered with one of the two gets both members.
    let login = listener.username.is_some() || listener.password.is_some();
    let text = |value: &'_ Option<String>| login.then(|| value.clone().unwrap_or_default());
    let (username, password) = (text(&listener.username), text(&listener.password));
    // The 5G page's sample of a success has neither a status nor counts.
    let plain = said.succeeded && change.kind == ChangeKind::FiveGBi;
    let as_text = shape == Shape::CountsAsText;
    let counted = |number| (!plain || as_text).then_some(Count { number, as_text });
    let old = shape == Shape::OldFault;
    // A failure without a fault still has the payload of its operation.
    let has_response = said.succeeded || (interim.is_none() && said.fault.is_none());
    let response = has_response.then(|| response(change, &named));
    let message = Message {
        username: username.as_deref(),
        password: password.as_deref(),
        request_id: (shape != Shape::NoRequestId).then_some(&change.request_id),
        device_ids: &named,
        device_response: response.map(|response| match shape {
            Shape::Array => OneOrList::List([response]),
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
        max_callback_threshold: counted(MAX_SENDS),
    };
    let mut body = serde_json::to_vec(&message)?;
    match shape {
        Shape::Cut => body.truncate(body.len() * 3 / 5),
        Shape::NoBrace => drop(body.drain(..1)),
        _ => {}
    }
    Ok(body)
}

fn say(kind: ChangeKind, ending: Ending, shape: Shape) -> Said {
    let status = match (ending, kind) {
        _ if shape == Shape::NoStatus => None,
        (Ending::Fails(_), _) => Some("Failed"),
        (Ending::Succeeds, ChangeKind::Esim) => Some("SUCCESS"),
        (Ending::Succeeds, ChangeKind::FiveGBi) => None,
    };
    let fault = match ending {
        Ending::Fails(fault) if shape != Shape::NoFault => Some(fault),
        _ => None,
    };
    Said {
        succeeded: ending == Ending::Succeeds,
        fault,
        status,
    }
}

/// The word `warning` is the pages'; what a request on hold says as its status
/// is told nowhere, and `Pending` is what a request status calls it.
fn say_interim(interim: Interim) -> Said {
    let (fault, status) = match interim {
        Interim::Warning => (None, "warning"),
        Interim::OnHold => (Some(&faults::ON_HOLD), "Pending"),
    };
    Said {
        succeeded: false,
        fault,
        status: Some(status),
    }
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
fn esim_names<'d>(device: &'d Device, mdn: &str) -> Vec<Named<'d>> {
    let eid = identifiers::find(device, "eid").unwrap_or_default();
    let iccid = identifiers::find(device, "iccid").unwrap_or_default();
    let phone = format!("1{mdn}");
    vec![
        named(eid, "Eid"),
        named(identifiers::imei_of(eid), "Imei"),
        named(phone, "msisdn"),
        named(iccid, "Iccid"),
    ]
}

/// The kinds that were sent, and the phone number.
fn five_g_names<'d>(device: &'d Device, mdn: &'d str) -> Vec<Named<'d>> {
    let mut names: Vec<_> = device
        .iter()
        .map(|one| named(&*one.id, &one.kind))
        .collect();
    if identifiers::find(device, "mdn").is_none() {
        names.push(named(mdn, "mdn"));
    }
    names
}

fn named<'d>(id: impl Into<Cow<'d, str>>, kind: &'d str) -> Named<'d> {
    Named {
        id: id.into(),
        kind,
    }
}

/// The start of the day in the platform's US style: `5/31/2018 12:00:00 AM`.
pub(super) fn us_midnight(unix_ms: u64) -> String {
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
