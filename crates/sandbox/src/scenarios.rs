//! The table of all scenarios. `sandbox scenarios` prints it, and a test holds
//! `docs/sandbox.md` to it.

use super::course::{Before, Reply, Rule, SessionRefusal, Throttle, TokenRefusal};
use super::fate::{Copies, Ending, Fate, Interim, Shape, When};
use super::faults;
use super::scenario::{Does, Of, Scenario};

const PLAIN: Fate = Fate::PLAIN;

/// Rows of the table: number, name, the changes that know it, what it does, what
/// happens.
macro_rules! table {
    ($( $number:literal $name:literal $of:ident: $does:expr; $happens:literal )+) => {
        &[$( Scenario {
            number: $number,
            name: $name,
            happens: $happens,
            of: Of::$of,
            does: $does,
        }, )+]
    };
}

const fn fails(fault: &'static faults::Fault) -> Does {
    Does::Device(Fate {
        ending: Ending::Fails(fault),
        ..PLAIN
    })
}

const fn told(when: When) -> Does {
    Does::Device(Fate { when, ..PLAIN })
}

const fn shaped(shape: Shape) -> Does {
    Does::Device(Fate { shape, ..PLAIN })
}

const fn failing(shape: Shape) -> Does {
    Does::Device(Fate {
        ending: Ending::Fails(&faults::UNEXPECTED),
        shape,
        ..PLAIN
    })
}

const fn copied(copies: Copies) -> Does {
    Does::Device(Fate { copies, ..PLAIN })
}

const fn first(interim: Interim, ending: Ending) -> Does {
    Does::Device(Fate {
        ending,
        first: Some(interim),
        ..PLAIN
    })
}

/// The device is on the plan before it is asked for, and stays on it.
const fn on_plan(when: When) -> Does {
    Does::Device(Fate {
        ending: Ending::Fails(&faults::SAME_PLAN),
        when,
        on_plan_before: true,
        ..PLAIN
    })
}

/// Numbers are never used again, and none changes its meaning.
pub(super) static SCENARIOS: &[Scenario] = table! {
    // === Device faults, one code each ===
    11 "fault_device_not_found" Both: fails(&faults::DEVICE_NOT_FOUND);
        "The device fails with `REQUEST_FAILED.DeviceNotFound`. The device list does not contain it"
    12 "fault_unexpected" Both: fails(&faults::UNEXPECTED);
        "The device fails with `REQUEST_FAILED.UnexpectedError`"
    13 "fault_state" Both: fails(&faults::STATE);
        "The device fails with `INPUT_INVALID.DeviceState.Invalid`"
    14 "fault_account" Both: fails(&faults::ACCOUNT);
        "The device fails with `INPUT_INVALID.Device.Account.Invalid`"
    15 "fault_identifier" Both: fails(&faults::IDENTIFIER);
        "The device fails with `INPUT_INVALID.Device.Identifier.Invalid`"
    16 "fault_already_active" Both: fails(&faults::ALREADY_ACTIVE);
        "The device fails with `REQUEST_FAILED.DeviceAlreadyActive`"

    // === Rules of the platform, told in the callback ===
    21 "suspended" Both: fails(&faults::SUSPENDED);
        "The device is suspended and fails with `INPUT_INVALID.DeviceState.Invalid`. Its state in the device list is `suspend`"
    22 "address_not_qualified" FiveGBi: fails(&faults::NOT_QUALIFIED);
        "The device fails with `REQUEST_FAILED.AddressNotQualified`. Only the callback reports it"
    23 "fifth_change" Both: fails(&faults::FIFTH_CHANGE);
        "The device fails with `REQUEST_FAILED.PlanChangeLimitExceeded`, as for the fifth change of a month"
    24 "already_on_plan" Both: on_plan(When::Due);
        "The device is on the requested plan already and fails with `REQUEST_FAILED.SamePlan`. The device list of every plan contains the serials 0 to 15 of this scenario at any time"

    // === When a callback comes ===
    31 "lost" Both: told(When::Never);
        "The device succeeds. Its callback is never sent"
    32 "lost_and_failed" Both: Does::Device(Fate {
            ending: Ending::Fails(&faults::UNEXPECTED), when: When::Never, ..PLAIN
        });
        "The device fails. Its callback is never sent"
    33 "lost_already_on_plan" Both: on_plan(When::Never);
        "As `already_on_plan`, but the callback is never sent. A lookup in the device list shows the plan although nothing changed: a client must compare it with a list from before the change"
    34 "late" Both: told(When::Late);
        "The device succeeds in time. Its callback is sent `sandbox.late_by` later"
    35 "early" Both: told(When::Early);
        "The callback is sent before the response to the request. The response waits for it, 10 s at most"
    36 "reversed" Both: Does::Reversed;
        "The callbacks of the request are sent in the reverse order of its devices"
    37 "duplicate" Both: copied(Copies::TwoInTurn);
        "The callback is sent again after the listener acknowledged it"
    38 "duplicate_at_once" Both: copied(Copies::TwoAtOnce);
        "The callback is sent twice at the same time"

    // === More than one callback ===
    41 "warning_then_success" Both: first(Interim::Warning, Ending::Succeeds);
        "A callback with status `warning` is sent, and `sandbox.interim_for` later one with success"
    42 "warning_then_failure" Both: first(Interim::Warning, Ending::Fails(&faults::UNEXPECTED));
        "A callback with status `warning` is sent, then one with `REQUEST_FAILED.UnexpectedError`"
    43 "on_hold_then_cancelled" Both: first(Interim::OnHold, Ending::Fails(&faults::CANCELLED));
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with a `REQUEST_CANCELLED` fault"
    44 "on_hold_then_success" Both: first(Interim::OnHold, Ending::Succeeds);
        "A callback with a `REQUEST_ONHOLD` fault is sent, then one with success"
    45 "warning_only" Both: Does::Device(Fate {
            first: Some(Interim::Warning), when: When::Never, ..PLAIN
        });
        "A callback with status `warning` is sent. The device then succeeds, and its final callback is never sent"

    // === How a callback looks ===
    51 "malformed_cut" Both: shaped(Shape::Cut);
        "The JSON of the callback is truncated, in every attempt"
    52 "malformed_no_brace" Both: shaped(Shape::NoBrace);
        "The callback lacks its opening brace, as observed in the field"
    53 "malformed_no_request_id" Both: shaped(Shape::NoRequestId);
        "The callback has no `requestId`"
    54 "no_status" Both: shaped(Shape::NoStatus);
        "The callback reports success without `status`"
    55 "fault_without_status" Both: failing(Shape::NoStatus);
        "The callback has a `faultResponse` and no `status`"
    56 "failed_without_fault" Both: failing(Shape::NoFault);
        "The callback has status `Failed` and no `faultResponse`"
    57 "fault_with_detail" Both: failing(Shape::OldFault);
        "The `faultResponse` also has `faultactor` and `detail`, as in the older data model"
    58 "response_array" Both: shaped(Shape::Array);
        "`deviceResponse` is an array, as in the tables of Verizon's documentation"
    59 "counts_as_text" Both: shaped(Shape::CountsAsText);
        "`callbackCount` and `maxCallbackThreshold` are strings, as in the tables of Verizon's documentation"
    60 "mdn_only" FiveGBi: shaped(Shape::MdnOnly);
        "The callback contains only the `mdn`, whichever identifiers were sent. Only the device list shows which device it belongs to"

    // === The answer to the request, which is executed ===
    61 "slow_answer" Both: Does::Reply(Reply::Slow);
        "The request is executed at once. The response is sent after `sandbox.slow_answer`"
    62 "dropped_after" Both: Does::Reply(Reply::Dropped);
        "The request is executed. The connection is closed without a response"
    63 "dropped_within" Both: Does::Reply(Reply::DroppedWithin);
        "The request is executed. The connection is closed in the middle of the response"
    64 "error_executed" Both: Does::Reply(Reply::Failed);
        "The request is executed. The response is 500"
    65 "html_executed" Both: Does::Reply(Reply::Html);
        "The request is executed. The response is 502 with an HTML page"
    66 "answer_without_request_id" Both: Does::Reply(Reply::NoRequestId);
        "The request is executed. The response is 200 without a `requestId`"
    67 "empty_answer" Both: Does::Reply(Reply::Empty);
        "The request is executed. The response is 200 without a body"

    // === The request is not executed ===
    71 "dropped_before" Both: Does::Before(Before::Dropped);
        "The request is not executed. The connection is closed, every time"
    72 "error_not_executed" Both: Does::Before(Before::Failed);
        "The request is not executed. The response is the same 500 as for `error_executed`, every time"
    73 "refused_fifth_change" Both: Does::Before(Before::Refused(Rule::FifthChange));
        "The request is not executed. The response is 400 with `REQUEST_FAILED.PlanChangeLimitExceeded`, every time"
    74 "refused_device_not_found" Both: Does::Before(Before::Refused(Rule::DeviceNotFound));
        "The request is not executed. The response is 400 with `REQUEST_FAILED.DeviceNotFound`, every time"

    // === Refused once for each serial, then executed ===
    81 "token_expired" Both: Does::Before(Before::Token(TokenRefusal::Expired));
        "The request is not executed with its first token. The response is 401 with fault 900901. The next token request returns another token"
    82 "token_expired_xml" Both: Does::Before(Before::Token(TokenRefusal::ExpiredXml));
        "As `token_expired`, with the fault in XML"
    83 "wrong_authentication_xml" Both: Does::Before(Before::Token(TokenRefusal::WrongXml));
        "As `token_expired`, with 403 and the XML of Verizon's error page, code 404"
    84 "session_expired" Both: Does::Before(Before::Session(SessionRefusal::Expired));
        "The request is not executed with its first session. The response is 400 with `REQUEST_FAILED.SessionToken.Expired`"
    85 "session_replaced" Both: Does::Before(Before::Session(SessionRefusal::Replaced));
        "The request is not executed with its first session. The response is 400 with `INPUT_INVALID.SessionToken.Invalid`"
    86 "session_bare" Both: Does::Before(Before::Session(SessionRefusal::Bare));
        "The request is not executed with its first session. The response is 401 without a body"
    87 "throttled_retry_after" Both: Does::Before(Before::Throttled(Throttle::WithRetryAfter));
        "The request is not executed the first time. The response is 429 with fault 900800 and `Retry-After: 1`"
    88 "throttled" Both: Does::Before(Before::Throttled(Throttle::WithoutRetryAfter));
        "The request is not executed the first time. The response is 429 with fault 900803 and no `Retry-After`"
    89 "throttled_burst" Both: Does::Before(Before::Throttled(Throttle::Burst));
        "The request is not executed the first time. The response is 503 with fault 900807"
    90 "throttled_bare" Both: Does::Before(Before::Throttled(Throttle::Bare));
        "The request is not executed the first time. The response is 429 without a body"
};
