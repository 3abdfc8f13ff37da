//! The outcomes of devices and requests that a scenario or the seed selects.

use serde::Serialize;

use crate::{errors::ErrorResponse, faults::Fault};

/// The outcome of a device, and how its callbacks report it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceOutcome {
    /// `None` if the device succeeds.
    pub(crate) fault: Option<&'static Fault>,
    pub(crate) interim: Option<InterimCallback>,
    pub(crate) timing: CallbackTiming,
    pub(crate) copies: CallbackCopies,
    pub(crate) format: CallbackFormat,
    /// True if the device is on the requested plan before the change.
    pub(crate) on_plan_before: bool,
}

/// A callback before the final one (see docs/thingspace-facts.md, section 4.3).
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
    /// Both are in flight at the same time, as observed on ThingSpace.
    TwoConcurrent,
}

/// Format of the final callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallbackFormat {
    Normal,
    Truncated,
    /// Reported from the field (see docs/thingspace-facts.md, section 4.3).
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
        fault: None,
        interim: None,
        timing: CallbackTiming::Due,
        copies: CallbackCopies::One,
        format: CallbackFormat::Normal,
        on_plan_before: false,
    };
}

/// Why a request is not executed.
#[derive(Clone, Debug)]
pub(crate) enum NotExecutedCause {
    /// The first access token of each serial number is rejected.
    Token(ErrorResponse),
    /// The first session of each serial number is rejected.
    Session(ErrorResponse),
    /// The first request of each serial number is rejected.
    First(ErrorResponse),
    /// A rule of the platform rejects every request.
    PlatformRule(&'static Fault),
    /// Every request is rejected.
    Always(ErrorResponse),
}

/// Response to an executed request. Serialized in the ledger.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseKind {
    RequestId,
    /// With the request ID, after `Settings::slow_answer`.
    Slow,
    /// The connection is closed without a response.
    Dropped,
    /// The connection is closed in the middle of the response.
    #[serde(rename = "dropped_within")]
    DroppedMidResponse,
    /// 500, the same as for a request that was not executed.
    #[serde(rename = "failed")]
    ServerError,
    /// 502 with an HTML page, as a proxy returns it.
    Html,
    /// 200 without a `requestId`.
    NoRequestId,
    /// 200 without a body.
    Empty,
}
