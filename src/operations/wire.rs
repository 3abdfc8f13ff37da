//! The HTTP request for ThingSpace.

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::domain::{
    change::SentDevice,
    identifier::{DeviceId, IdentifierKind},
};

/// An HTTP request for ThingSpace. The body can contain names and addresses, so there is no `Debug`.
pub struct OutboundRequest {
    /// The HTTP method.
    pub method: Method,
    /// The path below the base URL.
    pub path: &'static str,
    /// The JSON body.
    pub body: Bytes,
}

/// A device as `{"deviceIds": [...]}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceIdsBody<'a> {
    pub(crate) device_ids: Vec<DeviceIdBody<'a>>,
}

/// An identifier with the members in the order of ThingSpace's eSIM example.
#[derive(Serialize)]
pub(crate) struct DeviceIdBody<'a> {
    kind: &'static str,
    id: &'a str,
}

impl OutboundRequest {
    pub(crate) fn json(
        method: Method,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self { method, path, body: serde_json::to_vec(body)?.into() })
    }
}

impl<'a> From<&'a SentDevice> for DeviceIdsBody<'a> {
    fn from(device: &'a SentDevice) -> Self {
        Self { device_ids: device.ids.iter().map(DeviceIdBody::from).collect() }
    }
}

impl<'a> From<&'a DeviceId> for DeviceIdBody<'a> {
    fn from(id: &'a DeviceId) -> Self {
        Self { kind: wire_kind(id.kind()), id: id.id() }
    }
}

/// Returns a kind in the spelling of ThingSpace's examples: lower case, except `MEID`.
pub(crate) fn wire_kind(kind: IdentifierKind) -> &'static str {
    match kind {
        IdentifierKind::Meid => "MEID",
        other => other.as_str(),
    }
}
