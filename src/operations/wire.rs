//! The HTTP request for ThingSpace.

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::domain::{
    change::SentDevice,
    identifier::IdentifierKind,
    newtypes::{AccountName, ServicePlan},
};

/// The approximate size of an eSIM device in a body.
const DEVICE_BYTES: usize = 120;

/// An HTTP request for ThingSpace. The body can contain names and addresses, so there is no `Debug`.
pub struct OutboundRequest {
    /// The HTTP method.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The JSON body.
    pub body: Bytes,
}

impl OutboundRequest {
    /// Creates a request with a JSON body of about `size` bytes.
    pub(crate) fn json(
        method: Method,
        path: &'static str,
        body: &impl Serialize,
        size: usize,
    ) -> Result<Self, serde_json::Error> {
        let mut out = Vec::with_capacity(size);
        serde_json::to_writer(&mut out, body)?;
        Ok(Self { method, path, body: out.into() })
    }

    /// Creates a plan change whose devices have nothing but identifiers. The members are in the order of
    /// ThingSpace's eSIM example.
    pub(crate) fn plan_change(
        method: Method,
        path: &'static str,
        devices: &[SentDevice],
        account: &AccountName,
        plan: &ServicePlan,
    ) -> Result<Self, serde_json::Error> {
        let mut out = Vec::with_capacity(devices.len() * DEVICE_BYTES);
        out.extend_from_slice(br#"{"devices":["#);
        for (index, device) in devices.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_device(&mut out, device);
        }
        out.extend_from_slice(br#"],"accountName":"#);
        serde_json::to_writer(&mut out, account.as_str())?;
        out.extend_from_slice(br#","servicePlan":"#);
        serde_json::to_writer(&mut out, plan.as_str())?;
        out.push(b'}');
        Ok(Self { method, path, body: out.into() })
    }
}

/// Writes a device. Identifiers are digits, so they need no escapes.
fn write_device(out: &mut Vec<u8>, device: &SentDevice) {
    out.extend_from_slice(br#"{"deviceIds":["#);
    for (index, id) in device.ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let kind = wire_kind(id.kind()).as_bytes();
        let parts = [br#"{"kind":""#, kind, br#"","id":""#, id.id_bytes(), br#""}"#];
        parts.into_iter().for_each(|part| out.extend_from_slice(part));
    }
    out.extend_from_slice(b"]}");
}

/// Returns a kind in the spelling of ThingSpace's examples: lower case, except `MEID`.
pub(crate) fn wire_kind(kind: IdentifierKind) -> &'static str {
    match kind {
        IdentifierKind::Meid => "MEID",
        other => other.as_str(),
    }
}
