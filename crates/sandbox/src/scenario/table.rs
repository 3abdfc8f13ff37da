//! The table of scenarios. `sandbox scenarios` prints it, and a test compares it with
//! `docs/sandbox.md`.

use crate::callback_faults::{
    ACCOUNT, ALREADY_ACTIVE, CANCELLED, CallbackFault, DEVICE_NOT_FOUND, FIFTH_CHANGE, IDENTIFIER,
    NOT_QUALIFIED, SAME_PLAN, STATE, SUSPENDED, UNEXPECTED,
};
use crate::device_outcome::{
    CallbackCopies, CallbackFormat, CallbackTiming, DeviceOutcome, DeviceResult, InterimCallback,
};
use crate::request_outcome::{
    NotExecutedCause, PlatformRule, ResponseKind, SessionRejection, Throttle, TokenRejection,
};
use crate::scenario::definition::AppliesTo::{AllOperations, MdnCallbacks, ServiceAddresses};
use crate::scenario::definition::ScenarioEffect::{NotExecuted, Response, ReversedOrder};
use crate::scenario::definition::{AppliesTo, Scenario, ScenarioEffect};

const PLAIN: DeviceOutcome = DeviceOutcome::PLAIN;

const fn scenario(
    number: u8,
    name: &'static str,
    applies_to: AppliesTo,
    effect: ScenarioEffect,
    description: &'static str,
) -> Scenario {
    Scenario {
        number,
        name,
        description,
        applies_to,
        effect,
    }
}

const fn fails(fault: &'static CallbackFault) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: DeviceResult::Failed(fault),
        ..PLAIN
    })
}

const fn with_timing(result: DeviceResult, timing: CallbackTiming) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result,
        timing,
        ..PLAIN
    })
}

const fn with_format(result: DeviceResult, format: CallbackFormat) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result,
        format,
        ..PLAIN
    })
}

const fn with_copies(copies: CallbackCopies) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome { copies, ..PLAIN })
}

const fn with_interim(interim: InterimCallback, result: DeviceResult) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result,
        interim: Some(interim),
        ..PLAIN
    })
}

const fn already_on_plan(timing: CallbackTiming) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: DeviceResult::Failed(&SAME_PLAN),
        timing,
        on_plan_before: true,
        ..PLAIN
    })
}

const SUCCEEDED: DeviceResult = DeviceResult::Succeeded;
const FAILED: DeviceResult = DeviceResult::Failed(&UNEXPECTED);

/// All scenarios, in the order of their numbers.
#[rustfmt::skip]
pub(crate) static SCENARIOS: &[Scenario] = &[
    // Faults of a device.
    scenario(11, "fault_device_not_found", AllOperations, fails(&DEVICE_NOT_FOUND),
        "The device fails with `REQUEST_FAILED.DeviceNotFound`. The device list does not contain it"),
    scenario(12, "fault_unexpected", AllOperations, fails(&UNEXPECTED),
        "The device fails with `REQUEST_FAILED.UnexpectedError`"),
    scenario(13, "fault_state", AllOperations, fails(&STATE),
        "The device fails with `INPUT_INVALID.DeviceState.Invalid`"),
    scenario(14, "fault_account", AllOperations, fails(&ACCOUNT),
        "The device fails with `INPUT_INVALID.Device.Account.Invalid`"),
    scenario(15, "fault_identifier", AllOperations, fails(&IDENTIFIER),
        "The device fails with `INPUT_INVALID.Device.Identifier.Invalid`"),
    scenario(16, "fault_already_active", AllOperations, fails(&ALREADY_ACTIVE),
        "The device fails with `REQUEST_FAILED.DeviceAlreadyActive`"),

    // Rules of the platform that a callback reports.
    scenario(21, "suspended", AllOperations, fails(&SUSPENDED),
        "The device is suspended and fails with `INPUT_INVALID.DeviceState.Invalid`. Its state in the device list is `suspend`"),
    scenario(22, "address_not_qualified", ServiceAddresses, fails(&NOT_QUALIFIED),
        "The device fails with `REQUEST_FAILED.AddressNotQualified`. Only the callback reports it"),
    scenario(23, "fifth_change", AllOperations, fails(&FIFTH_CHANGE),
        "The device fails with `REQUEST_FAILED.PlanChangeLimitExceeded`, as for the fifth change of a month"),
    scenario(24, "already_on_plan", AllOperations, already_on_plan(CallbackTiming::Due),
        "The device is on the requested plan already and fails with `REQUEST_FAILED.SamePlan`. The device list of every plan contains the serials 0 to 15 of this scenario at any time"),

    // Time and number of the callbacks.
    scenario(31, "lost", AllOperations, with_timing(SUCCEEDED, CallbackTiming::Never),
        "The device succeeds. Its callback is never sent"),
    scenario(32, "lost_and_failed", AllOperations, with_timing(FAILED, CallbackTiming::Never),
        "The device fails. Its callback is never sent"),
    scenario(33, "lost_already_on_plan", AllOperations, already_on_plan(CallbackTiming::Never),
        "As `already_on_plan`, but the callback is never sent. A lookup in the device list shows the plan although nothing changed: a client must compare it with a list from before the change"),
    scenario(34, "late", AllOperations, with_timing(SUCCEEDED, CallbackTiming::Late),
        "The device succeeds in time. Its callback is sent `sandbox.late_delay` later"),
    scenario(35, "early", AllOperations, with_timing(SUCCEEDED, CallbackTiming::Early),
        "The callback is sent before the response to the request. The response waits for it, 10 s at most"),
    scenario(36, "reversed", AllOperations, ReversedOrder,
        "The callbacks of the request are sent in the reverse order of its devices"),
    scenario(37, "duplicate", AllOperations, with_copies(CallbackCopies::TwoSequential),
        "The callback is sent again after the listener acknowledged it"),
    scenario(38, "duplicate_at_once", AllOperations, with_copies(CallbackCopies::TwoConcurrent),
        "The callback is sent twice at the same time"),

    // Interim callbacks.
    scenario(41, "warning_then_success", AllOperations, with_interim(InterimCallback::Warning, SUCCEEDED),
        "A callback with status `warning` is sent, and `sandbox.interim_for` later one with success"),
    scenario(42, "warning_then_failure", AllOperations, with_interim(InterimCallback::Warning, FAILED),
        "A callback with status `warning` is sent, then one with `REQUEST_FAILED.UnexpectedError`"),
    scenario(43, "on_hold_then_cancelled", AllOperations, with_interim(InterimCallback::OnHold, DeviceResult::Failed(&CANCELLED)),
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with a `REQUEST_CANCELLED` fault"),
    scenario(44, "on_hold_then_success", AllOperations, with_interim(InterimCallback::OnHold, SUCCEEDED),
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with success"),
    scenario(45, "warning_only", AllOperations, ScenarioEffect::Device(DeviceOutcome {
            interim: Some(InterimCallback::Warning), timing: CallbackTiming::Never, ..PLAIN
        }),
        "A callback with status `warning` is sent. The device then succeeds, and its final callback is never sent"),

    // Format of the callback.
    scenario(51, "malformed_cut", AllOperations, with_format(SUCCEEDED, CallbackFormat::Truncated),
        "The JSON of the callback is truncated, in every attempt"),
    scenario(52, "malformed_no_brace", AllOperations, with_format(SUCCEEDED, CallbackFormat::NoOpeningBrace),
        "The callback lacks its opening brace, as observed in the field"),
    scenario(53, "malformed_no_request_id", AllOperations, with_format(SUCCEEDED, CallbackFormat::NoRequestId),
        "The callback has no `requestId`"),
    scenario(54, "no_status", AllOperations, with_format(SUCCEEDED, CallbackFormat::NoStatus),
        "The callback reports success without `status`"),
    scenario(55, "fault_without_status", AllOperations, with_format(FAILED, CallbackFormat::NoStatus),
        "The callback has a `faultResponse` and no `status`"),
    scenario(56, "failed_without_fault", AllOperations, with_format(FAILED, CallbackFormat::NoFault),
        "The callback has status `Failed` and no `faultResponse`"),
    scenario(57, "fault_with_detail", AllOperations, with_format(FAILED, CallbackFormat::FaultWithDetail),
        "The `faultResponse` also has `faultactor` and `detail`, as in the older data model"),
    scenario(58, "response_array", AllOperations, with_format(SUCCEEDED, CallbackFormat::ResponseArray),
        "`deviceResponse` is an array, as in the tables of Verizon's documentation"),
    scenario(59, "counts_as_text", AllOperations, with_format(SUCCEEDED, CallbackFormat::CountsAsStrings),
        "`callbackCount` and `maxCallbackThreshold` are strings, as in the tables of Verizon's documentation"),
    scenario(60, "mdn_only", MdnCallbacks, with_format(SUCCEEDED, CallbackFormat::MdnOnly),
        "The callback contains only the `mdn`, whichever identifiers were sent. Only the device list shows which device it belongs to"),

    // Response to a request that is executed.
    scenario(61, "slow_answer", AllOperations, Response(ResponseKind::Slow),
        "The request is executed at once. The response is sent after `sandbox.slow_answer`"),
    scenario(62, "dropped_after", AllOperations, Response(ResponseKind::Dropped),
        "The request is executed. The connection is closed without a response"),
    scenario(63, "dropped_within", AllOperations, Response(ResponseKind::DroppedMidResponse),
        "The request is executed. The connection is closed in the middle of the response"),
    scenario(64, "error_executed", AllOperations, Response(ResponseKind::ServerError),
        "The request is executed. The response is 500"),
    scenario(65, "html_executed", AllOperations, Response(ResponseKind::Html),
        "The request is executed. The response is 502 with an HTML page"),
    scenario(66, "answer_without_request_id", AllOperations, Response(ResponseKind::NoRequestId),
        "The request is executed. The response is 200 without a `requestId`"),
    scenario(67, "empty_answer", AllOperations, Response(ResponseKind::Empty),
        "The request is executed. The response is 200 without a body"),

    // Requests that are never executed.
    scenario(71, "dropped_before", AllOperations, NotExecuted(NotExecutedCause::Dropped),
        "The request is not executed. The connection is closed, every time"),
    scenario(72, "error_not_executed", AllOperations, NotExecuted(NotExecutedCause::ServerError),
        "The request is not executed. The response is the same 500 as for `error_executed`, every time"),
    scenario(73, "refused_fifth_change", AllOperations, NotExecuted(NotExecutedCause::PlatformRule(PlatformRule::FifthChange)),
        "The request is not executed. The response is 400 with `REQUEST_FAILED.PlanChangeLimitExceeded`, every time"),
    scenario(74, "refused_device_not_found", AllOperations, NotExecuted(NotExecutedCause::PlatformRule(PlatformRule::DeviceNotFound)),
        "The request is not executed. The response is 400 with `REQUEST_FAILED.DeviceNotFound`, every time"),

    // Requests that are rejected once for each serial number, then executed.
    scenario(81, "token_expired", AllOperations, NotExecuted(NotExecutedCause::Token(TokenRejection::Expired)),
        "The request is not executed with its first token. The response is 401 with fault 900901. The next token request returns another token"),
    scenario(82, "token_expired_xml", AllOperations, NotExecuted(NotExecutedCause::Token(TokenRejection::ExpiredXml)),
        "As `token_expired`, with the fault in XML"),
    scenario(83, "wrong_authentication_xml", AllOperations, NotExecuted(NotExecutedCause::Token(TokenRejection::WrongAuthenticationXml)),
        "As `token_expired`, with 403 and the XML of Verizon's error page, code 404"),
    scenario(84, "session_expired", AllOperations, NotExecuted(NotExecutedCause::Session(SessionRejection::Expired)),
        "The request is not executed with its first session. The response is 400 with `REQUEST_FAILED.SessionToken.Expired`"),
    scenario(85, "session_replaced", AllOperations, NotExecuted(NotExecutedCause::Session(SessionRejection::Replaced)),
        "The request is not executed with its first session. The response is 400 with `INPUT_INVALID.SessionToken.Invalid`"),
    scenario(86, "session_bare", AllOperations, NotExecuted(NotExecutedCause::Session(SessionRejection::WithoutBody)),
        "The request is not executed with its first session. The response is 401 without a body"),
    scenario(87, "throttled_retry_after", AllOperations, NotExecuted(NotExecutedCause::Throttled(Throttle::WithRetryAfter)),
        "The request is not executed the first time. The response is 429 with fault 900800 and `Retry-After: 1`"),
    scenario(88, "throttled", AllOperations, NotExecuted(NotExecutedCause::Throttled(Throttle::WithoutRetryAfter)),
        "The request is not executed the first time. The response is 429 with fault 900803 and no `Retry-After`"),
    scenario(89, "throttled_burst", AllOperations, NotExecuted(NotExecutedCause::Throttled(Throttle::Burst)),
        "The request is not executed the first time. The response is 503 with fault 900807"),
    scenario(90, "throttled_bare", AllOperations, NotExecuted(NotExecutedCause::Throttled(Throttle::WithoutBody)),
        "The request is not executed the first time. The response is 429 without a body"),
];
