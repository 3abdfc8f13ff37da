//! The table of scenarios. `sandbox scenarios` prints it, and a test compares it with
//! `docs/sandbox.md`.

use crate::{
    errors::ErrorResponse,
    faults::{
        ACCOUNT, ALREADY_ACTIVE, CANCELLED, DEVICE_NOT_FOUND, FIFTH_CHANGE, Fault, IDENTIFIER,
        NOT_QUALIFIED, SAME_PLAN, STATE, SUSPENDED, UNEXPECTED,
    },
    operations::operation::{Feature, Operation},
    outcome::{
        CallbackCopies, CallbackFormat, CallbackTiming, DeviceOutcome, InterimCallback,
        NotExecutedCause::{self, Always, First, PlatformRule, Session, Token},
        ResponseKind,
    },
    scenario::table::ScenarioEffect::{Device, NotExecuted, Response, ReversedOrder},
};

/// A situation that an identifier selects.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The two digits in its identifiers. Never reused.
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// The feature that an operation needs.
    pub(crate) feature: Option<Feature>,
    pub(crate) effect: ScenarioEffect,
}

#[derive(Debug)]
pub(crate) enum ScenarioEffect {
    /// Sets the outcome of the device.
    Device(DeviceOutcome),
    /// Rejects the request.
    NotExecuted(NotExecutedCause),
    /// Sets the response to the request, which is executed.
    Response(ResponseKind),
    /// Reverses the order of the request's callbacks.
    ReversedOrder,
}

impl Scenario {
    pub(crate) fn applies_to(&self, operation: &Operation) -> bool {
        self.feature.is_none_or(|feature| operation.features.contains(&feature))
    }

    /// Returns the outcome of the device, unless the scenario concerns the request.
    pub(crate) fn device_outcome(&self) -> Option<DeviceOutcome> {
        match self.effect {
            Device(outcome) => Some(outcome),
            NotExecuted(_) | Response(_) | ReversedOrder => None,
        }
    }
}

const fn scenario(
    number: u8,
    name: &'static str,
    feature: Option<Feature>,
    effect: ScenarioEffect,
    description: &'static str,
) -> Scenario {
    Scenario { number, name, description, feature, effect }
}

const fn fails(fault: &'static Fault) -> ScenarioEffect {
    Device(DeviceOutcome { fault: Some(fault), ..PLAIN })
}

const PLAIN: DeviceOutcome = DeviceOutcome::PLAIN;
const FAILED: Option<&Fault> = Some(&UNEXPECTED);
const ALREADY_ON_PLAN: DeviceOutcome =
    DeviceOutcome { fault: Some(&SAME_PLAN), on_plan_before: true, ..PLAIN };

/// All scenarios, in the order of their numbers.
#[rustfmt::skip]
pub(crate) static SCENARIOS: &[Scenario] = &[
    // Faults of a device.
    scenario(11, "fault_device_not_found", None, fails(&DEVICE_NOT_FOUND),
        "The device fails with `REQUEST_FAILED.DeviceNotFound`. The device list does not contain it"),
    scenario(12, "fault_unexpected", None, fails(&UNEXPECTED),
        "The device fails with `REQUEST_FAILED.UnexpectedError`"),
    scenario(13, "fault_state", None, fails(&STATE),
        "The device fails with `INPUT_INVALID.DeviceState.Invalid`"),
    scenario(14, "fault_account", None, fails(&ACCOUNT),
        "The device fails with `INPUT_INVALID.Device.Account.Invalid`"),
    scenario(15, "fault_identifier", None, fails(&IDENTIFIER),
        "The device fails with `INPUT_INVALID.Device.Identifier.Invalid`"),
    scenario(16, "fault_already_active", None, fails(&ALREADY_ACTIVE),
        "The device fails with `REQUEST_FAILED.DeviceAlreadyActive`"),

    // Rules of the platform that a callback reports.
    scenario(21, "suspended", None, fails(&SUSPENDED),
        "The device is suspended and fails with `INPUT_INVALID.DeviceState.Invalid`. Its state in the device list is `suspend`"),
    scenario(22, "address_not_qualified", Some(Feature::ServiceAddress), fails(&NOT_QUALIFIED),
        "The device fails with `REQUEST_FAILED.AddressNotQualified`. Only the callback reports it"),
    scenario(23, "fifth_change", None, fails(&FIFTH_CHANGE),
        "The device fails with `REQUEST_FAILED.PlanChangeLimitExceeded`, as for the fifth change of a month"),
    scenario(24, "already_on_plan", None, Device(ALREADY_ON_PLAN),
        "The device is on the requested plan already and fails with `REQUEST_FAILED.SamePlan`. The device list of every plan contains the serials 0 to 15 of this scenario at any time"),

    // Time and number of the callbacks.
    scenario(31, "lost", None, Device(DeviceOutcome { timing: CallbackTiming::Never, ..PLAIN }),
        "The device succeeds. Its callback is never sent"),
    scenario(32, "lost_and_failed", None, Device(DeviceOutcome { fault: FAILED, timing: CallbackTiming::Never, ..PLAIN }),
        "The device fails. Its callback is never sent"),
    scenario(33, "lost_already_on_plan", None, Device(DeviceOutcome { timing: CallbackTiming::Never, ..ALREADY_ON_PLAN }),
        "As `already_on_plan`, but the callback is never sent. A lookup in the device list shows the plan although nothing changed: a client must compare it with a list from before the change"),
    scenario(34, "late", None, Device(DeviceOutcome { timing: CallbackTiming::Late, ..PLAIN }),
        "The device succeeds in time. Its callback is sent `sandbox.late_delay` later"),
    scenario(35, "early", None, Device(DeviceOutcome { timing: CallbackTiming::Early, ..PLAIN }),
        "The callback is sent before the response to the request. The response waits for it, 10 s at most"),
    scenario(36, "reversed", None, ReversedOrder,
        "The callbacks of the request are sent in the reverse order of its devices"),
    scenario(37, "duplicate", None, Device(DeviceOutcome { copies: CallbackCopies::TwoSequential, ..PLAIN }),
        "The callback is sent again after the listener acknowledged it"),
    scenario(38, "duplicate_at_once", None, Device(DeviceOutcome { copies: CallbackCopies::TwoConcurrent, ..PLAIN }),
        "The callback is sent twice at the same time"),

    // Interim callbacks.
    scenario(41, "warning_then_success", None, Device(DeviceOutcome { interim: Some(InterimCallback::Warning), ..PLAIN }),
        "A callback with status `warning` is sent, and `sandbox.interim_for` later one with success"),
    scenario(42, "warning_then_failure", None, Device(DeviceOutcome { fault: FAILED, interim: Some(InterimCallback::Warning), ..PLAIN }),
        "A callback with status `warning` is sent, then one with `REQUEST_FAILED.UnexpectedError`"),
    scenario(43, "on_hold_then_cancelled", None, Device(DeviceOutcome { fault: Some(&CANCELLED), interim: Some(InterimCallback::OnHold), ..PLAIN }),
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with a `REQUEST_CANCELLED` fault"),
    scenario(44, "on_hold_then_success", None, Device(DeviceOutcome { interim: Some(InterimCallback::OnHold), ..PLAIN }),
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with success"),
    scenario(45, "warning_only", None, Device(DeviceOutcome {
            interim: Some(InterimCallback::Warning), timing: CallbackTiming::Never, ..PLAIN
        }),
        "A callback with status `warning` is sent. The device then succeeds, and its final callback is never sent"),

    // Format of the callback.
    scenario(51, "malformed_cut", None, Device(DeviceOutcome { format: CallbackFormat::Truncated, ..PLAIN }),
        "The JSON of the callback is truncated, in every attempt"),
    scenario(52, "malformed_no_brace", None, Device(DeviceOutcome { format: CallbackFormat::NoOpeningBrace, ..PLAIN }),
        "The callback lacks its opening brace, as observed in the field"),
    scenario(53, "malformed_no_request_id", None, Device(DeviceOutcome { format: CallbackFormat::NoRequestId, ..PLAIN }),
        "The callback has no `requestId`"),
    scenario(54, "no_status", None, Device(DeviceOutcome { format: CallbackFormat::NoStatus, ..PLAIN }),
        "The callback reports success without `status`"),
    scenario(55, "fault_without_status", None, Device(DeviceOutcome { fault: FAILED, format: CallbackFormat::NoStatus, ..PLAIN }),
        "The callback has a `faultResponse` and no `status`"),
    scenario(56, "failed_without_fault", None, Device(DeviceOutcome { fault: FAILED, format: CallbackFormat::NoFault, ..PLAIN }),
        "The callback has status `Failed` and no `faultResponse`"),
    scenario(57, "fault_with_detail", None, Device(DeviceOutcome { fault: FAILED, format: CallbackFormat::FaultWithDetail, ..PLAIN }),
        "The `faultResponse` also has `faultactor` and `detail`, as in the older data model"),
    scenario(58, "response_array", None, Device(DeviceOutcome { format: CallbackFormat::ResponseArray, ..PLAIN }),
        "`deviceResponse` is an array, as in the tables of Verizon's documentation"),
    scenario(59, "counts_as_text", None, Device(DeviceOutcome { format: CallbackFormat::CountsAsStrings, ..PLAIN }),
        "`callbackCount` and `maxCallbackThreshold` are strings, as in the tables of Verizon's documentation"),
    scenario(60, "mdn_only", Some(Feature::MdnOnlyCallback), Device(DeviceOutcome { format: CallbackFormat::MdnOnly, ..PLAIN }),
        "The callback contains only the `mdn`, whichever identifiers were sent. Only the device list shows which device it belongs to"),

    // Response to a request that is executed.
    scenario(61, "slow_answer", None, Response(ResponseKind::Slow),
        "The request is executed at once. The response is sent after `sandbox.slow_answer`"),
    scenario(62, "dropped_after", None, Response(ResponseKind::Dropped),
        "The request is executed. The connection is closed without a response"),
    scenario(63, "dropped_within", None, Response(ResponseKind::DroppedMidResponse),
        "The request is executed. The connection is closed in the middle of the response"),
    scenario(64, "error_executed", None, Response(ResponseKind::ServerError),
        "The request is executed. The response is 500"),
    scenario(65, "html_executed", None, Response(ResponseKind::Html),
        "The request is executed. The response is 502 with an HTML page"),
    scenario(66, "answer_without_request_id", None, Response(ResponseKind::NoRequestId),
        "The request is executed. The response is 200 without a `requestId`"),
    scenario(67, "empty_answer", None, Response(ResponseKind::Empty),
        "The request is executed. The response is 200 without a body"),

    // Requests that are never executed.
    scenario(71, "dropped_before", None, NotExecuted(Always(ErrorResponse::DROPPED)),
        "The request is not executed. The connection is closed, every time"),
    scenario(72, "error_not_executed", None, NotExecuted(Always(ErrorResponse::SERVER_ERROR)),
        "The request is not executed. The response is the same 500 as for `error_executed`, every time"),
    scenario(73, "refused_fifth_change", None, NotExecuted(PlatformRule(&FIFTH_CHANGE)),
        "The request is not executed. The response is 400 with `REQUEST_FAILED.PlanChangeLimitExceeded`, every time"),
    scenario(74, "refused_device_not_found", None, NotExecuted(PlatformRule(&DEVICE_NOT_FOUND)),
        "The request is not executed. The response is 400 with `REQUEST_FAILED.DeviceNotFound`, every time"),

    // Requests that are rejected once for each serial number, then executed.
    scenario(81, "token_expired", None, NotExecuted(Token(ErrorResponse::INVALID_TOKEN)),
        "The request is not executed with its first token. The response is 401 with fault 900901. The next token request returns another token"),
    scenario(82, "token_expired_xml", None, NotExecuted(Token(ErrorResponse::INVALID_TOKEN_XML)),
        "As `token_expired`, with the fault in XML"),
    scenario(83, "wrong_authentication_xml", None, NotExecuted(Token(ErrorResponse::WRONG_AUTHENTICATION)),
        "As `token_expired`, with 403 and the XML of Verizon's error page, code 404"),
    scenario(84, "session_expired", None, NotExecuted(Session(ErrorResponse::SESSION_EXPIRED)),
        "The request is not executed with its first session. The response is 400 with `REQUEST_FAILED.SessionToken.Expired`"),
    scenario(85, "session_replaced", None, NotExecuted(Session(ErrorResponse::SESSION_INVALID)),
        "The request is not executed with its first session. The response is 400 with `INPUT_INVALID.SessionToken.Invalid`"),
    scenario(86, "session_bare", None, NotExecuted(Session(ErrorResponse::UNAUTHORIZED_WITHOUT_BODY)),
        "The request is not executed with its first session. The response is 401 without a body"),
    scenario(87, "throttled_retry_after", None, NotExecuted(First(ErrorResponse::THROTTLED_FOR_A_SECOND)),
        "The request is not executed the first time. The response is 429 with fault 900800 and `Retry-After: 1`"),
    scenario(88, "throttled", None, NotExecuted(First(ErrorResponse::APPLICATION_THROTTLED)),
        "The request is not executed the first time. The response is 429 with fault 900803 and no `Retry-After`"),
    scenario(89, "throttled_burst", None, NotExecuted(First(ErrorResponse::BURST_THROTTLED)),
        "The request is not executed the first time. The response is 503 with fault 900807"),
    scenario(90, "throttled_bare", None, NotExecuted(First(ErrorResponse::THROTTLED_WITHOUT_BODY)),
        "The request is not executed the first time. The response is 429 without a body"),
];
