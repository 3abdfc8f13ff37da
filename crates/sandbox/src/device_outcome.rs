//! The outcome that a scenario or the seed selects for one device.

use crate::callback_faults::CallbackFault;

/// The outcome of a device, and how its callbacks report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceOutcome {
    pub(crate) result: DeviceResult,
    /// A callback before the final one.
    pub(crate) interim: Option<InterimCallback>,
    pub(crate) timing: CallbackTiming,
    pub(crate) copies: CallbackCopies,
    pub(crate) format: CallbackFormat,
    /// True if the device is on the requested plan before the change.
    pub(crate) on_plan_before: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceResult {
    Succeeded,
    Failed(&'static CallbackFault),
}

/// A callback before the final one (see thingspace-facts, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterimCallback {
    Warning,
    OnHold,
}

/// Time of the final callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackTiming {
    Due,
    /// Before the response to the request.
    Early,
    /// `Settings::late_delay` after it is due.
    Late,
    Never,
}

/// Number of copies of the final callback, apart from resends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackCopies {
    One,
    /// The second follows when the first is acknowledged.
    TwoSequential,
    /// Both are in flight at the same time, as measured on ThingSpace.
    TwoConcurrent,
}

/// Format of the final callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackFormat {
    Normal,
    /// The JSON is truncated.
    Truncated,
    /// Observed in the field (see thingspace-facts, section 8).
    NoOpeningBrace,
    NoRequestId,
    NoStatus,
    /// A failure without `faultResponse`.
    NoFault,
    /// The `faultResponse` has `faultactor` and `detail`, as in an older data model.
    FaultWithDetail,
    /// `deviceResponse` is an array, as in the tables of Verizon's documentation.
    ResponseArray,
    /// Counts are strings, as in the same tables.
    CountsAsStrings,
    /// The phone number is the only identifier, as in the example on the 5G page.
    MdnOnly,
}

impl DeviceOutcome {
    /// Success, with one callback when it is due.
    pub(crate) const PLAIN: Self = Self {
        result: DeviceResult::Succeeded,
        interim: None,
        timing: CallbackTiming::Due,
        copies: CallbackCopies::One,
        format: CallbackFormat::Normal,
        on_plan_before: false,
    };

    pub(crate) fn fault(&self) -> Option<&'static CallbackFault> {
        match self.result {
            DeviceResult::Succeeded => None,
            DeviceResult::Failed(fault) => Some(fault),
        }
    }
}
