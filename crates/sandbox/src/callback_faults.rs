//! The faults that callbacks report.

/// The cause of a device's failure, in its callback.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CallbackFault {
    pub(crate) code: &'static str,
    pub(crate) text: &'static str,
}

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

/// The documented code of a device in a wrong state: no code is documented for a suspended one.
pub(crate) static SUSPENDED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid",
    text: "INPUT_INVALID. The device is suspended",
};

// The rules behind the next three faults are documented, their codes are not (see thingspace-facts,
// section 3.2).

pub(crate) static NOT_QUALIFIED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.AddressNotQualified",
    text: "REQUEST_FAILED. The address is not qualified for this service plan",
};
pub(crate) static FIFTH_CHANGE: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.PlanChangeLimitExceeded",
    text: "REQUEST_FAILED. The device has had its four plan changes of this month",
};
pub(crate) static SAME_PLAN: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_FAILED.SamePlan",
    text: "REQUEST_FAILED. The device is on the service plan already",
};

// The classes of these codes are documented, their last parts are not (see thingspace-facts,
// section 4.3).

pub(crate) static ON_HOLD: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_ONHOLD.CreditCheck",
    text: "REQUEST_ONHOLD. The request waits for a credit check",
};
pub(crate) static CANCELLED: CallbackFault = CallbackFault {
    code: "UnifiedWebService.REQUEST_CANCELLED.CreditCheck",
    text: "REQUEST_CANCELLED. The request was cancelled after a credit check",
};

/// The faults of devices that fail at random.
pub(crate) static SEEDED: [&CallbackFault; 5] =
    [&DEVICE_NOT_FOUND, &UNEXPECTED, &STATE, &ACCOUNT, &IDENTIFIER];
