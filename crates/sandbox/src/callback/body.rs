//! The bodies of callbacks, in the formats of Verizon's documentation and in those that were
//! observed.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::callback_faults::{self, CallbackFault};
use crate::device_outcome::{CallbackFormat, DeviceResult, InterimCallback};
use crate::identifiers::DeviceId;
use crate::ledger::entries::{DeviceChange, ExecutedChange};
use crate::listeners::CallbackListener;

/// Maximum number of times that a callback is sent (see thingspace-facts, section 4.4).
pub(crate) const MAX_CALLBACK_COUNT: u32 = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallbackBody<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'m str>,
    device_ids: &'m [DeviceId],
    #[serde(skip_serializing_if = "Option::is_none")]
    device_response: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_response: Option<FaultResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback_count: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_callback_threshold: Option<Count>,
}

/// A number in the examples of Verizon's documentation, a string in its tables.
struct Count {
    number: u32,
    as_string: bool,
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.as_string {
            return serializer.collect_str(&self.number);
        }
        serializer.serialize_u32(self.number)
    }
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

/// The result in a callback.
struct CallbackResult {
    has_device_response: bool,
    fault: Option<&'static CallbackFault>,
    status: Option<&'static str>,
    has_counts: bool,
}

/// Encodes an interim or the final callback of a device.
pub(crate) fn encode(
    change: &ExecutedChange,
    device: &DeviceChange,
    interim: Option<InterimCallback>,
    listener: &CallbackListener,
    count: u32,
) -> Result<Vec<u8>, serde_json::Error> {
    let (format, result) = match interim {
        Some(interim) => (CallbackFormat::Normal, interim_result(interim)),
        None => (device.planned_outcome.format, final_result(change, device)),
    };
    let mdn = &*device.record.mdn;
    let ids = match format {
        CallbackFormat::MdnOnly => vec![DeviceId::new("mdn", mdn)],
        _ => change.operation.callback_device_ids(&device.sent, mdn),
    };
    // A listener with one credential gets both members.
    let has_credentials = listener.username.is_some() || listener.password.is_some();
    let credential =
        |value: &'_ Option<String>| has_credentials.then(|| value.clone().unwrap_or_default());
    let username = credential(&listener.username);
    let password = credential(&listener.password);
    let count_of = |number| {
        result.has_counts.then_some(Count {
            number,
            as_string: format == CallbackFormat::CountsAsStrings,
        })
    };
    let response = result.has_device_response.then(|| {
        let response = change
            .operation
            .device_response(&ids, change.received_at_ms);
        match format {
            CallbackFormat::ResponseArray => Value::Array(vec![response]),
            _ => response,
        }
    });
    let with_detail = format == CallbackFormat::FaultWithDetail;
    let mut body = serde_json::to_vec(&CallbackBody {
        username: username.as_deref(),
        password: password.as_deref(),
        request_id: (format != CallbackFormat::NoRequestId).then_some(&change.request_id),
        device_ids: &ids,
        device_response: response,
        fault_response: result.fault.map(|fault| FaultResponse {
            faultactor: with_detail.then_some("UnifiedWebService"),
            faultcode: fault.code,
            faultstring: fault.text,
            detail: with_detail.then_some("No more is known"),
        }),
        status: result.status,
        callback_count: count_of(count),
        max_callback_threshold: count_of(MAX_CALLBACK_COUNT),
    })?;
    match format {
        CallbackFormat::Truncated => body.truncate(body.len() * 3 / 5),
        CallbackFormat::NoOpeningBrace => drop(body.drain(..1)),
        _ => {}
    }
    Ok(body)
}

fn final_result(change: &ExecutedChange, device: &DeviceChange) -> CallbackResult {
    let format = device.planned_outcome.format;
    let success_status = change.operation.success_status();
    let (status, fault) = match device.planned_outcome.result {
        DeviceResult::Succeeded => (success_status, None),
        DeviceResult::Failed(fault) => (Some("Failed"), Some(fault)),
    };
    CallbackResult {
        // A failure without a fault has the response of a success.
        has_device_response: fault.is_none() || format == CallbackFormat::NoFault,
        has_counts: fault.is_some()
            || success_status.is_some()
            || format == CallbackFormat::CountsAsStrings,
        fault: fault.filter(|_| format != CallbackFormat::NoFault),
        status: status.filter(|_| format != CallbackFormat::NoStatus),
    }
}

/// The status `warning` is documented. `Pending` is assumed: it is the status of the request.
fn interim_result(interim: InterimCallback) -> CallbackResult {
    let (fault, status) = match interim {
        InterimCallback::Warning => (None, "warning"),
        InterimCallback::OnHold => (Some(&callback_faults::ON_HOLD), "Pending"),
    };
    CallbackResult {
        has_device_response: false,
        fault,
        status: Some(status),
        has_counts: true,
    }
}
