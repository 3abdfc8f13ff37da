//! The bodies of callbacks, in the formats of Verizon's documentation and in those that were
//! observed.

use serde_json::{Value, json};

use crate::{
    faults::{self, Fault},
    identifiers::DeviceId,
    json_body::remove_nulls,
    ledger::entries::{DeviceChange, ExecutedChange},
    listeners::CallbackListener,
    outcome::{CallbackFormat, InterimCallback},
};

/// Maximum number of times that a callback is sent (see docs/thingspace-facts.md, section 4.4).
pub(crate) const MAX_CALLBACK_COUNT: u32 = 4;

/// Encodes an interim or the final callback of a device.
pub(crate) fn encode(
    change: &ExecutedChange,
    device: &DeviceChange,
    interim: Option<InterimCallback>,
    listener: &CallbackListener,
    count: u32,
) -> Vec<u8> {
    let operation = change.operation;
    let planned = &device.planned_outcome;
    // The status `warning` is documented. `Pending` is assumed: it is the status of the request.
    let (format, fault, status) = match interim {
        Some(InterimCallback::Warning) => (CallbackFormat::Normal, None, Some("warning")),
        Some(InterimCallback::OnHold) => {
            (CallbackFormat::Normal, Some(&faults::ON_HOLD), Some("Pending"))
        }
        None if planned.fault.is_some() => (planned.format, planned.fault, Some("Failed")),
        None => (planned.format, None, operation.success_status),
    };
    // A failure without a fault has the response of a success.
    let has_device_response =
        interim.is_none() && (fault.is_none() || format == CallbackFormat::NoFault);
    let has_counts = status.is_some() || format == CallbackFormat::CountsAsStrings;
    let mdn = &*device.record.mdn;
    let ids = match format {
        CallbackFormat::MdnOnly => vec![DeviceId::new("mdn", mdn)],
        _ => (operation.callback_device_ids)(&device.sent, mdn),
    };
    // A listener with one credential gets both members.
    let has_credentials = listener.username.is_some() || listener.password.is_some();
    let credential =
        |value: &Option<String>| has_credentials.then(|| value.clone().unwrap_or_default());
    let count_value = |number: u32| {
        if !has_counts {
            Value::Null
        } else if format == CallbackFormat::CountsAsStrings {
            number.to_string().into()
        } else {
            number.into()
        }
    };
    let response = has_device_response.then(|| {
        let response = (operation.device_response)(&ids, change.received_at_ms);
        match format {
            CallbackFormat::ResponseArray => Value::Array(vec![response]),
            _ => response,
        }
    });
    let mut body = json!({
        "username": credential(&listener.username),
        "password": credential(&listener.password),
        "requestId": (format != CallbackFormat::NoRequestId).then_some(&change.request_id),
        "deviceIds": ids,
        "deviceResponse": response,
        "faultResponse": fault
            .filter(|_| format != CallbackFormat::NoFault)
            .map(|fault| fault_response(fault, format)),
        "status": status.filter(|_| format != CallbackFormat::NoStatus),
        "callbackCount": count_value(count),
        "maxCallbackThreshold": count_value(MAX_CALLBACK_COUNT),
    });
    remove_nulls(&mut body);
    let mut body = body.to_string().into_bytes();
    match format {
        CallbackFormat::Truncated => body.truncate(body.len() * 3 / 5),
        CallbackFormat::NoOpeningBrace => drop(body.drain(..1)),
        _ => {}
    }
    body
}

fn fault_response(fault: &Fault, format: CallbackFormat) -> Value {
    let Fault { code, message } = fault;
    let text = format!("{}. {message}", code.split('.').nth(1).unwrap_or_default());
    if format == CallbackFormat::FaultWithDetail {
        return json!({
            "faultactor": "UnifiedWebService",
            "faultcode": code,
            "faultstring": text,
            "detail": "No more is known",
        });
    }
    json!({ "faultcode": code, "faultstring": text })
}
