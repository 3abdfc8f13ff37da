//! Requests for unit tests.

use crate::{
    operations::{
        ChangeRequest, RpcOperation, ValidationRules, esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange,
    },
    proto,
};

pub(crate) const ACCOUNT: &str = "0000123456-00001";

pub(crate) const RULES: ValidationRules =
    ValidationRules { max_devices_per_request: 10_000, require_key: true, reject_reserved: false };

/// Returns the ICCID of a profile by its number.
pub(crate) fn iccid(number: usize) -> String {
    format!("8914800000{number:010}")
}

pub(crate) fn esim_message(
    key: &str,
    devices: impl IntoIterator<Item = usize>,
) -> proto::ChangeEsimPlanRequest {
    let device = |number| proto::EsimDevice {
        eid: format!("8904903200000100000000{number:010}"),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    };
    proto::ChangeEsimPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "plan".into(),
        idempotency_key: key.into(),
        devices: devices.into_iter().map(device).collect(),
        ..Default::default()
    }
}

pub(crate) fn place() -> proto::PrimaryPlaceOfUse {
    proto::PrimaryPlaceOfUse {
        address: Some(proto::Address {
            address_line1: "1 Main St".into(),
            address_line2: "Suite 2".into(),
            city: "Dallas".into(),
            state: "TX".into(),
            zip: "75001".into(),
            zip4: "0001".into(),
            country: "US".into(),
        }),
        customer_name: Some(proto::CustomerName {
            title: "Dr.".into(),
            first_name: "Ada".into(),
            middle_name: "B".into(),
            last_name: "Lovelace-King #2!".into(),
            suffix: "III".into(),
        }),
    }
}

pub(crate) fn five_g_bi_message(
    key: &str,
    devices: &[&[(&str, &str)]],
) -> proto::ChangeFiveGBiPlanRequest {
    let id = |(kind, id): &(&str, &str)| proto::DeviceId { kind: (*kind).into(), id: (*id).into() };
    let device = |ids: &&[(&str, &str)]| proto::FiveGBiDevice {
        device_ids: ids.iter().map(id).collect(),
        primary_place_of_use: Some(place()),
        client_reference: String::new(),
    };
    proto::ChangeFiveGBiPlanRequest {
        account_name: ACCOUNT.into(),
        service_plan: "plan".into(),
        idempotency_key: key.into(),
        devices: devices.iter().map(device).collect(),
        ..Default::default()
    }
}

pub(crate) fn esim(key: &str, devices: impl IntoIterator<Item = usize>) -> ChangeRequest {
    EsimPlanChange::validate(esim_message(key, devices), RULES).unwrap()
}

pub(crate) fn five_g_bi(key: &str, devices: &[&[(&str, &str)]]) -> ChangeRequest {
    FiveGBiPlanChange::validate(five_g_bi_message(key, devices), RULES).unwrap()
}
