//! The bodies of the two plan changes, member for member and in the order of
//! ThingSpace's own examples ("Change the eSIM Profile Service Plan", "Change
//! service plan" of 5G Business Internet).

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;

use crate::domain::{
    change::{ChangeRequest, OperationPayload},
    identifier::{DeviceId, IdentifierKind},
    newtypes::ServicePlan,
    place_of_use::PrimaryPlaceOfUse,
};

/// One slash before `devices`, as in all sibling calls; the page prints two.
const ESIM_PATH: &str = "/m2m/v1/devices/profile/actions/serviceplan";
const FIVE_G_BI_PATH: &str = "/m2m/v1/devices/actions/plan";

/// A plan change, ready to leave. The body holds names and addresses: it has
/// no `Debug`.
pub(super) struct OutboundRequest {
    /// Names the call in logs.
    pub(super) operation: &'static str,
    pub(super) method: Method,
    /// Below the base URL.
    pub(super) path: &'static str,
    pub(super) body: Bytes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EsimChangeBody<'a> {
    devices: Vec<EsimChangeDevice<'a>>,
    account_name: &'a str,
    service_plan: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EsimChangeDevice<'a> {
    device_ids: Vec<KindAndId<'a>>,
}

#[derive(Serialize)]
struct KindAndId<'a> {
    kind: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FiveGBiBody<'a> {
    account_name: &'a str,
    service_plan: &'a str,
    device_list_with_service_address: Vec<FiveGBiDevice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_service_plan: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FiveGBiDevice<'a> {
    device_ids: Vec<IdAndKind<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_place_of_use: Option<PlaceBody<'a>>,
}

#[derive(Serialize)]
struct IdAndKind<'a> {
    id: &'a str,
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlaceBody<'a> {
    address: AddressBody<'a>,
    customer_name: NameBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AddressBody<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    address_line1: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    address_line2: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    city: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    state: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    country: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    zip: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    zip4: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NameBody<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    first_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    middle_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    last_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    suffix: &'a str,
}

// === impl Parcel ===

impl OutboundRequest {
    /// Writes a change as ThingSpace wants it.
    pub(super) fn from_change_request(
        change_request: &ChangeRequest,
        five_g_bi_method: &Method,
    ) -> Result<Self, serde_json::Error> {
        Ok(match &change_request.payload {
            OperationPayload::EsimPlan => Self {
                operation: "change_esim_plan",
                method: Method::POST,
                path: ESIM_PATH,
                body: serde_json::to_vec(&EsimChangeBody::from_change_request(change_request))?
                    .into(),
            },
            OperationPayload::FiveGBiPlan {
                current_service_plan,
                places_of_use: places,
            } => Self {
                operation: "change_five_g_bi_plan",
                method: five_g_bi_method.clone(),
                path: FIVE_G_BI_PATH,
                body: serde_json::to_vec(&FiveGBiBody {
                    account_name: change_request.account.as_str(),
                    service_plan: change_request.service_plan.as_str(),
                    device_list_with_service_address: FiveGBiDevice::from_change_request(
                        change_request,
                        places,
                    ),
                    current_service_plan: current_service_plan.as_ref().map(ServicePlan::as_str),
                })?
                .into(),
            },
        })
    }
}

// === impl the bodies ===

impl<'a> EsimChangeBody<'a> {
    fn from_change_request(change_request: &'a ChangeRequest) -> Self {
        let ids = |ids: &'a [DeviceId]| {
            ids.iter()
                .map(|id| KindAndId {
                    kind: wire_kind(id.kind()),
                    id: id.id(),
                })
                .collect()
        };
        Self {
            devices: change_request
                .devices
                .iter()
                .map(|device| EsimChangeDevice {
                    device_ids: ids(&device.ids),
                })
                .collect(),
            account_name: change_request.account.as_str(),
            service_plan: change_request.service_plan.as_str(),
        }
    }
}

impl<'a> FiveGBiDevice<'a> {
    fn from_change_request(
        change_request: &'a ChangeRequest,
        places: &'a [PrimaryPlaceOfUse],
    ) -> Vec<Self> {
        // By index rather than zipped: should a place be missing, ThingSpace
        // refuses the device; it must not silently go missing as well.
        change_request
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| Self {
                device_ids: device
                    .ids
                    .iter()
                    .map(|id| IdAndKind {
                        id: id.id(),
                        kind: wire_kind(id.kind()),
                    })
                    .collect(),
                primary_place_of_use: places.get(index).map(PlaceBody::from_place),
            })
            .collect()
    }
}

impl<'a> PlaceBody<'a> {
    fn from_place(place: &'a PrimaryPlaceOfUse) -> Self {
        let (address, name) = (&place.address, &place.customer_name);
        Self {
            address: AddressBody {
                address_line1: &address.address_line1,
                address_line2: &address.address_line2,
                city: &address.city,
                state: &address.state,
                country: &address.country,
                zip: &address.zip,
                zip4: &address.zip4,
            },
            customer_name: NameBody {
                title: &name.title,
                first_name: &name.first_name,
                middle_name: &name.middle_name,
                last_name: &name.last_name,
                suffix: &name.suffix,
            },
        }
    }
}

/// A kind as the examples spell it: the eSIM page in lower case, the 5G
/// Business Internet page its MEID in upper case.
fn wire_kind(kind: IdentifierKind) -> &'static str {
    match kind {
        IdentifierKind::Meid => "MEID",
        other => other.as_str(),
    }
}
