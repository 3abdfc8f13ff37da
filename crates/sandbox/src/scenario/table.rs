//! The table of all scenarios. `sandbox scenarios` prints it, and a test holds
//! `docs/sandbox.md` to it.

use crate::callback_faults;
use crate::device_outcome::{
    CallbackCopies, CallbackFormat, CallbackTiming, DeviceOutcome, DeviceResult, InterimCallback,
};
use crate::request_outcome::{
    NotExecutedCause, PlatformRule, ResponseKind, SessionRejection, Throttle, TokenRejection,
};
use crate::scenario::{AppliesTo, Scenario, ScenarioEffect};

const PLAIN: DeviceOutcome = DeviceOutcome::PLAIN;

/// Rows of the table: number, name, the changes that know it, what it does, what
/// happens.
macro_rules! table {
    ($( $number:literal $name:literal $applies_to:ident: $effect:expr; $description:literal )+) => {
        &[$( Scenario {
            number: $number,
            name: $name,
            description: $description,
            applies_to: AppliesTo::$applies_to,
            effect: $effect,
        }, )+]
    };
}

const fn fails(fault: &'static callback_faults::CallbackFault) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: DeviceResult::Failed(fault),
        ..PLAIN
    })
}

const fn with_timing(when: CallbackTiming) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        timing: when,
        ..PLAIN
    })
}

const fn with_format(shape: CallbackFormat) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        format: shape,
        ..PLAIN
    })
}

const fn fails_with_format(shape: CallbackFormat) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: DeviceResult::Failed(&callback_faults::UNEXPECTED),
        format: shape,
        ..PLAIN
    })
}

const fn with_copies(copies: CallbackCopies) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome { copies, ..PLAIN })
}

const fn with_interim(interim: InterimCallback, ending: DeviceResult) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: ending,
        interim: Some(interim),
        ..PLAIN
    })
}

/// The device is on the plan before it is asked for, and stays on it.
const fn already_on_plan(when: CallbackTiming) -> ScenarioEffect {
    ScenarioEffect::Device(DeviceOutcome {
        result: DeviceResult::Failed(&callback_faults::SAME_PLAN),
        timing: when,
        on_plan_before: true,
        ..PLAIN
    })
}

/// Numbers are never used again, and none changes its meaning.
pub(crate) static SCENARIOS: &[Scenario] = table! {
    // === Device faults, one code each ===
    11 "fault_device_not_found" Both: fails(&callback_faults::DEVICE_NOT_FOUND);
        "The device fails with `REQUEST_FAILED.DeviceNotFound`. The device list does not contain it"
    12 "fault_unexpected" Both: fails(&callback_faults::UNEXPECTED);
        "The device fails with `REQUEST_FAILED.UnexpectedError`"
    13 "fault_state" Both: fails(&callback_faults::STATE);
        "The device fails with `INPUT_INVALID.DeviceState.Invalid`"
    14 "fault_account" Both: fails(&callback_faults::ACCOUNT);
        "The device fails with `INPUT_INVALID.Device.Account.Invalid`"
    15 "fault_identifier" Both: fails(&callback_faults::IDENTIFIER);
        "The device fails with `INPUT_INVALID.Device.Identifier.Invalid`"
    16 "fault_already_active" Both: fails(&callback_faults::ALREADY_ACTIVE);
        "The device fails with `REQUEST_FAILED.DeviceAlreadyActive`"

    // === Rules of the platform, told in the callback ===
    21 "suspended" Both: fails(&callback_faults::SUSPENDED);
        "The device is suspended and fails with `INPUT_INVALID.DeviceState.Invalid`. Its state in the device list is `suspend`"
    22 "address_not_qualified" FiveGBi: fails(&callback_faults::NOT_QUALIFIED);
        "The device fails with `REQUEST_FAILED.AddressNotQualified`. Only the callback reports it"
    23 "fifth_change" Both: fails(&callback_faults::FIFTH_CHANGE);
        "The device fails with `REQUEST_FAILED.PlanChangeLimitExceeded`, as for the fifth change of a month"
    24 "already_on_plan" Both: already_on_plan(CallbackTiming::Due);
        "The device is on the requested plan already and fails with `REQUEST_FAILED.SamePlan`. The device list of every plan contains the serials 0 to 15 of this scenario at any time"

    // === When a callback comes ===
    31 "lost" Both: with_timing(CallbackTiming::Never);
        "The device succeeds. Its callback is never sent"
    32 "lost_and_failed" Both: ScenarioEffect::Device(DeviceOutcome {
            result: DeviceResult::Failed(&callback_faults::UNEXPECTED), timing: CallbackTiming::Never, ..PLAIN
        });
        "The device fails. Its callback is never sent"
    33 "lost_already_on_plan" Both: already_on_plan(CallbackTiming::Never);
        "As `already_on_plan`, but the callback is never sent. A lookup in the device list shows the plan although nothing changed: a client must compare it with a list from before the change"
    34 "late" Both: with_timing(CallbackTiming::Late);
        "The device succeeds in time. Its callback is sent `sandbox.late_delay` later"
    35 "early" Both: with_timing(CallbackTiming::Early);
        "The callback is sent before the response to the request. The response waits for it, 10 s at most"
    36 "reversed" Both: ScenarioEffect::ReversedOrder;
        "The callbacks of the request are sent in the reverse order of its devices"
    37 "duplicate" Both: with_copies(CallbackCopies::TwoSequential);
        "The callback is sent again after the listener acknowledged it"
    38 "duplicate_at_once" Both: with_copies(CallbackCopies::TwoConcurrent);
        "The callback is sent twice at the same time"

    // === More than one callback ===
    41 "warning_then_success" Both: with_interim(InterimCallback::Warning, DeviceResult::Succeeded);
        "A callback with status `warning` is sent, and `sandbox.interim_for` later one with success"
    42 "warning_then_failure" Both: with_interim(InterimCallback::Warning, DeviceResult::Failed(&callback_faults::UNEXPECTED));
        "A callback with status `warning` is sent, then one with `REQUEST_FAILED.UnexpectedError`"
    43 "on_hold_then_cancelled" Both: with_interim(InterimCallback::OnHold, DeviceResult::Failed(&callback_faults::CANCELLED));
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with a `REQUEST_CANCELLED` fault"
    44 "on_hold_then_success" Both: with_interim(InterimCallback::OnHold, DeviceResult::Succeeded);
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with success"
    45 "warning_only" Both: ScenarioEffect::Device(DeviceOutcome {
            interim: Some(InterimCallback::Warning), timing: CallbackTiming::Never, ..PLAIN
        });
        "A callback with status `warning` is sent. The device then succeeds, and its final callback is never sent"

    // === How a callback looks ===
    51 "malformed_cut" Both: with_format(CallbackFormat::Truncated);
        "The JSON of the callback is truncated, in every attempt"
    52 "malformed_no_brace" Both: with_format(CallbackFormat::NoOpeningBrace);
        "The callback lacks its opening brace, as observed in the field"
    53 "malformed_no_request_id" Both: with_format(CallbackFormat::NoRequestId);
        "The callback has no `requestId`"
    54 "no_status" Both: with_format(CallbackFormat::NoStatus);
        "The callback reports success without `status`"
    55 "fault_without_status" Both: fails_with_format(CallbackFormat::NoStatus);
        "The callback has a `faultResponse` and no `status`"
    56 "failed_without_fault" Both: fails_with_format(CallbackFormat::NoFault);
        "The callback has status `Failed` and no `faultResponse`"
    57 "fault_with_detail" Both: fails_with_format(CallbackFormat::FaultWithDetail);
        "The `faultResponse` also has `faultactor` and `detail`, as in the older data model"
    58 "response_array" Both: with_format(CallbackFormat::ResponseArray);
        "`deviceResponse` is an array, as in the tables of Verizon's documentation"
    59 "counts_as_text" Both: with_format(CallbackFormat::CountsAsStrings);
        "`callbackCount` and `maxCallbackThreshold` are strings, as in the tables of Verizon's documentation"
    60 "mdn_only" FiveGBi: with_format(CallbackFormat::MdnOnly);
        "The callback contains only the `mdn`, whichever identifiers were sent. Only the device list shows which device it belongs to"

    // === The answer to the request, which is executed ===
    61 "slow_answer" Both: ScenarioEffect::Response(ResponseKind::Slow);
        "The request is executed at once. The response is sent after `sandbox.slow_answer`"
    62 "dropped_after" Both: ScenarioEffect::Response(ResponseKind::Dropped);
        "The request is executed. The connection is closed without a response"
    63 "dropped_within" Both: ScenarioEffect::Response(ResponseKind::DroppedMidResponse);
        "The request is executed. The connection is closed in the middle of the response"
    64 "error_executed" Both: ScenarioEffect::Response(ResponseKind::ServerError);
        "The request is executed. The response is 500"
    65 "html_executed" Both: ScenarioEffect::Response(ResponseKind::Html);
        "The request is executed. The response is 502 with an HTML page"
    66 "answer_without_request_id" Both: ScenarioEffect::Response(ResponseKind::NoRequestId);
        "The request is executed. The response is 200 without a `requestId`"
    67 "empty_answer" Both: ScenarioEffect::Response(ResponseKind::Empty);
        "The request is executed. The response is 200 without a body"

    // === The request is not executed ===
    71 "dropped_before" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Dropped);
        "The request is not executed. The connection is closed, every time"
    72 "error_not_executed" Both: ScenarioEffect::NotExecuted(NotExecutedCause::ServerError);
        "The request is not executed. The response is the same 500 as for `error_executed`, every time"
    73 "refused_fifth_change" Both: ScenarioEffect::NotExecuted(NotExecutedCause::PlatformRule(PlatformRule::FifthChange));
        "The request is not executed. The response is 400 with `REQUEST_FAILED.PlanChangeLimitExceeded`, every time"
    74 "refused_device_not_found" Both: ScenarioEffect::NotExecuted(NotExecutedCause::PlatformRule(PlatformRule::DeviceNotFound));
        "The request is not executed. The response is 400 with `REQUEST_FAILED.DeviceNotFound`, every time"

    // === Refused once for each serial, then executed ===
    81 "token_expired" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Token(TokenRejection::Expired));
        "The request is not executed with its first token. The response is 401 with fault 900901. The next token request returns another token"
    82 "token_expired_xml" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Token(TokenRejection::ExpiredXml));
        "As `token_expired`, with the fault in XML"
    83 "wrong_authentication_xml" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Token(TokenRejection::WrongAuthenticationXml));
        "As `token_expired`, with 403 and the XML of Verizon's error page, code 404"
    84 "session_expired" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Session(SessionRejection::Expired));
        "The request is not executed with its first session. The response is 400 with `REQUEST_FAILED.SessionToken.Expired`"
    85 "session_replaced" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Session(SessionRejection::Replaced));
        "The request is not executed with its first session. The response is 400 with `INPUT_INVALID.SessionToken.Invalid`"
    86 "session_bare" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Session(SessionRejection::NoBody));
        "The request is not executed with its first session. The response is 401 without a body"
    87 "throttled_retry_after" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Throttled(Throttle::WithRetryAfter));
        "The request is not executed the first time. The response is 429 with fault 900800 and `Retry-After: 1`"
    88 "throttled" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Throttled(Throttle::WithoutRetryAfter));
        "The request is not executed the first time. The response is 429 with fault 900803 and no `Retry-After`"
    89 "throttled_burst" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Throttled(Throttle::Burst));
        "The request is not executed the first time. The response is 503 with fault 900807"
    90 "throttled_bare" Both: ScenarioEffect::NotExecuted(NotExecutedCause::Throttled(Throttle::NoBody));
        "The request is not executed the first time. The response is 429 without a body"
};
