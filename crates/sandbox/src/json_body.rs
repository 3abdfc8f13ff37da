//! The two plan changes: their bodies and what is refused about them.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::errors::{ErrorResponse, ValidationError, code};
use crate::identifiers::{self, DeviceId, DeviceIds};

/// Devices that one request may name (ThingSpace, Change the eSIM Profile
/// Service Plan page; for 5G Business Internet no limit is documented).
pub(crate) const MAX_DEVICES_PER_REQUEST: usize = 10_000;
/// Identifiers that one device may have: there are no more kinds than that.
const MAX_IDS: usize = 16;

/// Which of the two endpoints was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    EsimPlan,
    FiveGBiPlan,
}

impl OperationKind {
    /// The callback service that tells the results. For the eSIM call its page
    /// names none; the payload and the sibling calls say this one.
    pub(crate) fn callback_service(self) -> &'static str {
        match self {
            Self::EsimPlan => "DeviceProfileService",
            Self::FiveGBiPlan => "CarrierService",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EsimPlan => "esim",
            Self::FiveGBiPlan => "five_g_bi",
        }
    }

    /// The error in the shape of this endpoint's family.
    pub(crate) fn error_response(self, invalid: ValidationError) -> ErrorResponse {
        match self {
            Self::EsimPlan => invalid.into_numeric_response(),
            Self::FiveGBiPlan => invalid.into_dotted_response(),
        }
    }
}

/// A change that is fit to be executed.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    pub(crate) operation: OperationKind,
    /// Optional for 5G Business Internet, where one user may have one account.
    pub(crate) account: Option<String>,
    pub(crate) service_plan: String,
    pub(crate) devices: Vec<DeviceIds>,
}

/// Reads the body of a change.
pub(crate) fn parse_change(
    kind: OperationKind,
    body: &[u8],
) -> Result<ChangeRequest, ValidationError> {
    check_characters(body)?;
    match kind {
        OperationKind::EsimPlan => parse_json::<EsimPlanBody<'_>>(body)?.into_request(),
        OperationKind::FiveGBiPlan => parse_json::<FiveGBiPlanBody<'_>>(body)?.into_request(),
    }
}

/// Refuses an apostrophe, `<` or a backslash anywhere in a request (ThingSpace,
/// Synchronous Error Messages page). It looks at the bytes, so that an escape
/// inside a JSON string is refused too.
pub(crate) fn check_characters(body: &[u8]) -> Result<(), ValidationError> {
    if body.iter().any(|byte| matches!(byte, b'\'' | b'<' | b'\\')) {
        return Err(ValidationError::new(
            code::INVALID_CHARACTER,
            "The request contains an invalid character",
        ));
    }
    Ok(())
}

/// Reads JSON. The parser's own words are not passed on: they may quote values.
pub(crate) fn parse_json<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, ValidationError> {
    serde_json::from_slice(body).map_err(|error| {
        ValidationError::new(
            code::DESERIALIZATION,
            format!(
                "The request could not be read at line {} column {}",
                error.line(),
                error.column()
            ),
        )
    })
}

/// Account names are digits with a dash; the simulator's are `TestAccount-1`.
pub(crate) fn check_account(account: &str) -> Result<(), ValidationError> {
    let fits = (3..=32).contains(&account.len())
        && account
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    fits.then_some(()).ok_or_else(|| {
        ValidationError::new(code::ACCOUNT_NOT_DEFINED, "The account is not defined")
    })
}

// After `check_characters` no string has an escape, so text can be borrowed.

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EsimPlanBody<'b> {
    #[serde(borrow)]
    devices: Option<BoundedList<EsimPlanDevice<'b>, MAX_DEVICES_PER_REQUEST>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EsimPlanDevice<'b> {
    #[serde(borrow)]
    device_ids: Option<BoundedList<DeviceIdBody<'b>, MAX_IDS>>,
}

#[derive(Deserialize)]
struct DeviceIdBody<'b> {
    kind: Option<&'b str>,
    id: Option<&'b str>,
}

impl EsimPlanBody<'_> {
    fn into_request(self) -> Result<ChangeRequest, ValidationError> {
        let account = required(self.account_name, "accountName")?;
        check_account(account)?;
        let service_plan = required(self.service_plan, "servicePlan")?;
        let devices = list(self.devices, "devices")?
            .into_iter()
            .map(EsimPlanDevice::into_device_ids)
            .collect::<Result<_, _>>()?;
        Ok(ChangeRequest {
            operation: OperationKind::EsimPlan,
            account: Some(account.to_owned()),
            service_plan: service_plan.to_owned(),
            devices,
        })
    }
}

impl EsimPlanDevice<'_> {
    /// Both an eid and an iccid, and nothing else.
    fn into_device_ids(self) -> Result<DeviceIds, ValidationError> {
        let device = parse_device_ids(self.device_ids)?;
        let count = |kind: &str| device.iter().filter(|one| one.has_kind(kind)).count();
        if device.len() == 2 && count("eid") == 1 && count("iccid") == 1 {
            return Ok(device);
        }
        Err(ValidationError::new(
            code::KIND_INVALID,
            "Each device needs one eid and one iccid, and no other kind",
        ))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FiveGBiPlanBody<'b> {
    #[serde(borrow)]
    device_list_with_service_address:
        Option<BoundedList<FiveGBiPlanDevice<'b>, MAX_DEVICES_PER_REQUEST>>,
    account_name: Option<&'b str>,
    service_plan: Option<&'b str>,
    devices: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FiveGBiPlanDevice<'b> {
    #[serde(borrow)]
    device_ids: Option<BoundedList<DeviceIdBody<'b>, MAX_IDS>>,
    primary_place_of_use: Option<PlaceOfUse<'b>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceOfUse<'b> {
    #[serde(borrow)]
    address: Option<PlaceAddress<'b>>,
    customer_name: Option<CustomerName<'b>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlaceAddress<'b> {
    address_line1: Option<&'b str>,
    city: Option<&'b str>,
    state: Option<&'b str>,
    zip: Option<&'b str>,
    country: Option<&'b str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomerName<'b> {
    first_name: Option<&'b str>,
    last_name: Option<&'b str>,
}

impl FiveGBiPlanBody<'_> {
    fn into_request(self) -> Result<ChangeRequest, ValidationError> {
        if self.devices.is_some() {
            return Err(ValidationError::new(
                code::REQUEST_UNDEFINED,
                "The sandbox knows this path with deviceListWithServiceAddress only",
            ));
        }
        self.account_name.map_or(Ok(()), check_account)?;
        let service_plan = required(self.service_plan, "servicePlan")?;
        let list = list(
            self.device_list_with_service_address,
            "deviceListWithServiceAddress",
        )?;
        let devices = list
            .into_iter()
            .map(FiveGBiPlanDevice::into_device_ids)
            .collect::<Result<_, _>>()?;
        Ok(ChangeRequest {
            operation: OperationKind::FiveGBiPlan,
            account: self.account_name.map(str::to_owned),
            service_plan: service_plan.to_owned(),
            devices,
        })
    }
}

impl FiveGBiPlanDevice<'_> {
    /// Members of the page's table that are not marked optional. `zip4` is not
    /// marked either, but the page's own example leaves it out.
    fn into_device_ids(self) -> Result<DeviceIds, ValidationError> {
        let place = present(self.primary_place_of_use, "primaryPlaceOfUse")?;
        let address = present(place.address, "address")?;
        required(address.address_line1, "addressLine1")?;
        required(address.city, "city")?;
        required(address.state, "state")?;
        required(address.zip, "zip")?;
        required(address.country, "country")?;
        let name = present(place.customer_name, "customerName")?;
        check_name(name.first_name, "firstName", 20)?;
        check_name(name.last_name, "lastName", 25)?;
        parse_device_ids(self.device_ids)
    }
}

fn check_name(name: Option<&str>, member: &str, longest: usize) -> Result<(), ValidationError> {
    let name = required(name, member)?;
    let fits = name.chars().count() <= longest
        && name
            .chars()
            .all(|one| one.is_alphanumeric() || matches!(one, ' ' | '-' | '!' | '#'));
    fits.then_some(()).ok_or_else(|| {
        ValidationError::new(code::INVALID_CHARACTER, format!("{member} is not valid"))
    })
}

fn parse_device_ids(
    ids: Option<BoundedList<DeviceIdBody<'_>, MAX_IDS>>,
) -> Result<DeviceIds, ValidationError> {
    list(ids, "deviceIds")?
        .into_iter()
        .map(|one| {
            let kind = required(one.kind, "kind")?;
            let id = required(one.id, "id")?;
            identifiers::validate(kind, id)?;
            Ok(DeviceId {
                id: id.into(),
                kind: kind.into(),
            })
        })
        .collect()
}

fn present<T>(value: Option<T>, member: &str) -> Result<T, ValidationError> {
    value.ok_or_else(|| {
        ValidationError::new(
            code::REQUEST_UNDEFINED,
            format!("The request has no {member}"),
        )
    })
}

pub(crate) fn required<'b>(
    value: Option<&'b str>,
    member: &str,
) -> Result<&'b str, ValidationError> {
    present(value.filter(|text| !text.trim().is_empty()), member)
}

fn list<T, const MAX: usize>(
    value: Option<BoundedList<T, MAX>>,
    member: &str,
) -> Result<Vec<T>, ValidationError> {
    let capped = present(value, member)?;
    if capped.excess > 0 {
        return Err(ValidationError::new(
            code::TOO_MANY,
            format!("{member} has more than {MAX} entries"),
        ));
    }
    present(Some(capped.items).filter(|items| !items.is_empty()), member)
}

/// An array of which at most `MAX` entries are kept and the rest is counted: a
/// body of empty objects must not become hundreds of megabytes.
struct BoundedList<T, const MAX: usize> {
    items: Vec<T>,
    excess: usize,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(CappedVisitor(PhantomData))
    }
}

struct CappedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for CappedVisitor<T, MAX> {
    type Value = BoundedList<T, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(BoundedList { items, excess: 0 }),
            }
        }
        let mut beyond = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            beyond += 1;
        }
        Ok(BoundedList {
            items,
            excess: beyond,
        })
    }
}
