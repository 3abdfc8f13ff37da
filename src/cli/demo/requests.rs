//! Requests of the demo. One device in ten fails, and one in ten has its callback sent twice: their
//! identifiers select a scenario of the sandbox (docs/sandbox.md).

use tonic::{Status, transport::Channel};

use crate::proto::{self, gateway_service_client::GatewayServiceClient};

pub(super) type Client = GatewayServiceClient<Channel>;

/// Account of the demo.
const ACCOUNT: &str = "0000123456-00001";

/// Number of devices after which the scenarios repeat.
const PERIOD: u32 = 10;
/// Digits of the scenario `duplicate_at_once`.
const DUPLICATE: &str = "38";
/// Digits of the scenario `fault_device_not_found`.
const DEVICE_NOT_FOUND: &str = "11";
/// Digits of the scenario `address_not_qualified`.
const ADDRESS_NOT_QUALIFIED: &str = "22";

/// A request to change plans.
pub(super) enum ChangeRequest {
    Esim(proto::ChangeEsimPlanRequest),
    FiveGBi(proto::ChangeFiveGBiPlanRequest),
    ServicePlan(proto::ChangeServicePlanRequest),
}

/// Number of devices of a change whose callback the sandbox sends twice.
pub(super) fn duplicated_callbacks(devices: u32) -> u32 {
    devices.div_ceil(PERIOD)
}

// === impl ChangeRequest ===

impl ChangeRequest {
    pub(super) fn all(devices: u32) -> [Self; 3] {
        [Self::esim(devices), Self::five_g_bi(devices), Self::service_plan(devices)]
    }

    /// Name of the method, and path template of ThingSpace's call.
    pub(super) fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Esim(_) => ("ChangeEsimPlan", "/m2m/v1/devices/profile/actions/serviceplan"),
            Self::FiveGBi(_) => ("ChangeFiveGBiPlan", "/m2m/v1/devices/actions/plan"),
            Self::ServicePlan(_) => ("ChangeServicePlan", "/m2m/v1/devices/actions/plan"),
        }
    }

    pub(super) async fn send(&self, client: &mut Client) -> Result<proto::Change, Status> {
        let change = match self {
            Self::Esim(request) => {
                client.change_esim_plan(request.clone()).await?.into_inner().change
            }
            Self::FiveGBi(request) => {
                client.change_five_g_bi_plan(request.clone()).await?.into_inner().change
            }
            Self::ServicePlan(request) => {
                client.change_service_plan(request.clone()).await?.into_inner().change
            }
        };
        Ok(change.unwrap_or_default())
    }

    fn esim(devices: u32) -> Self {
        let devices = (0..devices).map(|number| {
            let iccid = match digits(number, DEVICE_NOT_FOUND) {
                Some(digits) => format!("99949{digits}{number:013}"),
                None => format!("9994{number:016}"),
            };
            proto::EsimDevice {
                eid: format!("99{number:030}"),
                iccid,
                client_reference: format!("row-{number}"),
            }
        });
        Self::Esim(proto::ChangeEsimPlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: "Demo Plan".into(),
            devices: devices.collect(),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            ..proto::ChangeEsimPlanRequest::default()
        })
    }

    fn five_g_bi(devices: u32) -> Self {
        let place = proto::PrimaryPlaceOfUse {
            address: Some(proto::Address {
                address_line1: "1 Main St".into(),
                city: "Dallas".into(),
                state: "TX".into(),
                zip: "75001".into(),
                ..proto::Address::default()
            }),
            customer_name: Some(proto::CustomerName {
                first_name: "Ada".into(),
                last_name: "Lovelace".into(),
                ..proto::CustomerName::default()
            }),
        };
        let devices = (0..devices).map(|number| proto::FiveGBiDevice {
            device_ids: vec![meid(number, number, ADDRESS_NOT_QUALIFIED)],
            primary_place_of_use: Some(place.clone()),
            client_reference: format!("row-{number}"),
        });
        Self::FiveGBi(proto::ChangeFiveGBiPlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: "DEMOPLAN".into(),
            devices: devices.collect(),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            ..proto::ChangeFiveGBiPlanRequest::default()
        })
    }

    /// The MEIDs continue those of the 5G devices.
    fn service_plan(devices: u32) -> Self {
        let first = devices;
        let devices = (0..devices).map(|number| proto::ServicePlanDevice {
            device_ids: vec![meid(number, first + number, DEVICE_NOT_FOUND)],
            client_reference: format!("row-{number}"),
        });
        Self::ServicePlan(proto::ChangeServicePlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: "Demo Plan".into(),
            devices: devices.collect(),
            idempotency_key: uuid::Uuid::new_v4().to_string(),
            ..proto::ChangeServicePlanRequest::default()
        })
    }
}

/// MEID with a serial number. `number` decides its scenario.
fn meid(number: u32, serial: u32, failure: &'static str) -> proto::DeviceId {
    let id = match digits(number, failure) {
        Some(digits) => format!("FF00000F{digits}{serial:04X}"),
        None => format!("FF00000{serial:07X}"),
    };
    proto::DeviceId { kind: "meid".into(), id }
}

/// Digits of the device's scenario: the first of ten is sent twice, the second fails.
fn digits(number: u32, failure: &'static str) -> Option<&'static str> {
    match number % PERIOD {
        0 => Some(DUPLICATE),
        1 => Some(failure),
        _ => None,
    }
}
