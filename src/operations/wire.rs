//! The HTTP request for ThingSpace.

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::domain::{
    change::SentDevice,
    identifier::IdentifierKind,
    newtypes::{AccountName, ServicePlan},
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

/// The body of a plan change whose devices have nothing but identifiers. The members are in the order of
/// ThingSpace's eSIM example.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanChangeBody<'a> {
    devices: Vec<Device<'a>>,
    account_name: &'a str,
    service_plan: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    device_ids: Vec<DeviceId<'a>>,
}

#[derive(Serialize)]
struct DeviceId<'a> {
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

impl<'a> PlanChangeBody<'a> {
    pub(crate) fn new(
        devices: &'a [SentDevice],
        account: &'a AccountName,
        plan: &'a ServicePlan,
    ) -> Self {
        let device = |sent: &'a SentDevice| {
            let ids = sent.ids.iter();
            let ids = ids.map(|id| DeviceId { kind: wire_kind(id.kind()), id: id.id() });
            Device { device_ids: ids.collect() }
        };
        Self {
            devices: devices.iter().map(device).collect(),
            account_name: account.as_str(),
            service_plan: plan.as_str(),
        }
    }
}

/// Returns a kind in the spelling of ThingSpace's examples: lower case, except `MEID`.
pub(crate) fn wire_kind(kind: IdentifierKind) -> &'static str {
    match kind {
        IdentifierKind::Meid => "MEID",
        other => other.as_str(),
    }
}
