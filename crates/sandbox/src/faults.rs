//! The faults of requests, which responses report, and those of devices, which callbacks report.

use std::borrow::Cow;

/// Codes of invalid requests (see docs/thingspace-facts.md, section 6). `PASSWORD_INVALID` is
/// assumed.
pub(crate) mod code {
    pub(crate) const INVALID_CHARACTER: &str =
        "UnifiedWebService.INPUT_INVALID.Request.InvalidCharacter";
    pub(crate) const REQUEST_UNDEFINED: &str = "UnifiedWebService.INPUT_INVALID.RequestUndefined";
    pub(crate) const ACCOUNT_NOT_DEFINED: &str =
        "UnifiedWebService.INPUT_INVALID.Account.NotDefined";
    pub(crate) const KIND_INVALID: &str = "UnifiedWebService.INPUT_INVALID.Device.Kind.Invalid";
    pub(crate) const IDENTIFIER_INVALID: &str =
        "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid";
    pub(crate) const STATE_INVALID: &str = "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid";
    pub(crate) const TOO_MANY: &str = "UnifiedWebService.INPUT_INVALID.MaxRequestsExceeded";
    pub(crate) const PASSWORD_INVALID: &str = "UnifiedWebService.INPUT_INVALID.Password.Invalid";
    pub(crate) const SESSION_INVALID: &str = "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid";
    pub(crate) const SESSION_EXPIRED: &str =
        "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired";
    pub(crate) const SESSION_FORMAT: &str = "UnifiedWebService.REQUEST_FAILED.SessionToken.Format";
    pub(crate) const MULTIPLE_ACCOUNTS: &str = "UnifiedWebService.REQUEST_FAILED.MultipleAccounts";
    pub(crate) const UNEXPECTED: &str = "UnifiedWebService.REQUEST_FAILED.UnexpectedError";
    /// Documented without a service name.
    pub(crate) const DESERIALIZATION: &str = "DeserializationFailed";
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
}

impl Fault {
    pub(crate) const fn new(code: &'static str, message: &'static str) -> Self {
        Self { code, message: Cow::Borrowed(message) }
    }

    pub(crate) fn with_details(code: &'static str, message: String) -> Self {
        Self { code, message: message.into() }
    }
}

pub(crate) static DEVICE_NOT_FOUND: Fault =
    Fault::new("UnifiedWebService.REQUEST_FAILED.DeviceNotFound", "The device could not be found");
pub(crate) static UNEXPECTED: Fault = Fault::new(code::UNEXPECTED, "An unexpected error occurred");
pub(crate) static STATE: Fault =
    Fault::new(code::STATE_INVALID, "The device state does not allow this operation");
pub(crate) static ACCOUNT: Fault = Fault::new(
    "UnifiedWebService.INPUT_INVALID.Device.Account.Invalid",
    "The device does not belong to the account",
);
pub(crate) static IDENTIFIER: Fault =
    Fault::new(code::IDENTIFIER_INVALID, "The device identifier is not valid");
pub(crate) static ALREADY_ACTIVE: Fault =
    Fault::new("UnifiedWebService.REQUEST_FAILED.DeviceAlreadyActive", "Device is already active");

/// The documented code of a device in a wrong state: no code is documented for a suspended one.
pub(crate) static SUSPENDED: Fault = Fault::new(code::STATE_INVALID, "The device is suspended");

// The codes of the next three faults are assumed. The rules behind the first two are documented
// (see docs/thingspace-facts.md, section 3.2).

pub(crate) static NOT_QUALIFIED: Fault = Fault::new(
    "UnifiedWebService.REQUEST_FAILED.AddressNotQualified",
    "The address is not qualified for this service plan",
);
pub(crate) static FIFTH_CHANGE: Fault = Fault::new(
    "UnifiedWebService.REQUEST_FAILED.PlanChangeLimitExceeded",
    "The device has had its four plan changes of this month",
);
pub(crate) static SAME_PLAN: Fault = Fault::new(
    "UnifiedWebService.REQUEST_FAILED.SamePlan",
    "The device is on the service plan already",
);

// The classes of these codes are known, their last parts are assumed (see docs/thingspace-facts.md,
// section 4.3).

pub(crate) static ON_HOLD: Fault = Fault::new(
    "UnifiedWebService.REQUEST_ONHOLD.CreditCheck",
    "The request waits for a credit check",
);
pub(crate) static CANCELLED: Fault = Fault::new(
    "UnifiedWebService.REQUEST_CANCELLED.CreditCheck",
    "The request was cancelled after a credit check",
);

/// The faults of devices that fail at random.
pub(crate) static SEEDED: [&Fault; 5] =
    [&DEVICE_NOT_FOUND, &UNEXPECTED, &STATE, &ACCOUNT, &IDENTIFIER];
