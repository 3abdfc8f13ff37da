//! The faults that callbacks tell.

/// Why a device's change fails, as its callback says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CallbackFault {
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
}

// Codes and shape of the texts from the Callback Error Messages page.

pub(crate) static DEVICE_NOT_FOUND: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
    text: "REQUEST_FAILED. The device could not be found",
};
pub(crate) static UNEXPECTED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.UnexpectedError",
    text: "REQUEST_FAILED. An unexpected error occurred",
};
pub(crate) static STATE: CallbackFault = CallbackFault {
    code: "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid",
    text: "INPUT_INVALID. The device state does not allow this operation",
};
pub(crate) static ACCOUNT: CallbackFault = CallbackFault {
    code: "UnifiedWebService.INPUT_INVALID.Device.Account.Invalid",
    text: "INPUT_INVALID. The device does not belong to the account",
};
pub(crate) static IDENTIFIER: CallbackFault = CallbackFault {
    code: "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid",
    text: "INPUT_INVALID. The device identifier is not valid",
};
pub(crate) static ALREADY_ACTIVE: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.DeviceAlreadyActive",
    text: "REQUEST_FAILED. Device is already active",
};

/// The rule is the pages' ("not while suspended"); the code is the one for a
/// device in a wrong state.
pub(crate) static SUSPENDED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid",
    text: "INPUT_INVALID. The device is suspended",
};
/// The rule is the 5G Business Internet page's; no page tells its code.
pub(crate) static NOT_QUALIFIED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.AddressNotQualified",
    text: "REQUEST_FAILED. The address is not qualified for this service plan",
};
/// The rule is the pages' ("four plan changes a month"); no page tells its code.
pub(crate) static FIFTH_CHANGE: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.PlanChangeLimitExceeded",
    text: "REQUEST_FAILED. The device has had its four plan changes of this month",
};
/// What a change to the present plan is answered with is told nowhere.
pub(crate) static SAME_PLAN: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.SamePlan",
    text: "REQUEST_FAILED. The device is on the service plan already",
};

/// Classes of codes that T-EVAN quotes from the page; what follows them is ours.
pub(crate) static ON_HOLD: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_ONHOLD.CreditCheck",
    text: "REQUEST_ONHOLD. The request waits for a credit check",
};
pub(crate) static CANCELLED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_CANCELLED.CreditCheck",
    text: "REQUEST_CANCELLED. The request was cancelled after a credit check",
};

/// The ones that a seed draws from.
pub(crate) static SEEDED: [&CallbackFault; 5] = [
    &DEVICE_NOT_FOUND,
    &UNEXPECTED,
    &STATE,
    &ACCOUNT,
    &IDENTIFIER,
];
