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
        "Fails with `REQUEST_FAILED.DeviceNotFound`; the device list does not know the device either"
    12 "fault_unexpected" Both: fails(&faults::UNEXPECTED);
        "Fails with `REQUEST_FAILED.UnexpectedError`"
    13 "fault_state" Both: fails(&faults::STATE);
        "Fails with `INPUT_INVALID.DeviceState.Invalid`"
    14 "fault_account" Both: fails(&faults::ACCOUNT);
        "Fails with `INPUT_INVALID.Device.Account.Invalid`"
    15 "fault_identifier" Both: fails(&faults::IDENTIFIER);
        "Fails with `INPUT_INVALID.Device.Identifier.Invalid`"
    16 "fault_already_active" Both: fails(&faults::ALREADY_ACTIVE);
        "Fails with `REQUEST_FAILED.DeviceAlreadyActive`"

    // === Rules of the platform, told in the callback ===
    21 "suspended" Both: fails(&faults::SUSPENDED);
        "The device is suspended: fails with `INPUT_INVALID.DeviceState.Invalid`; the device list says `suspend`"
    22 "address_not_qualified" FiveGBi: fails(&faults::NOT_QUALIFIED);
        "Fails with `REQUEST_FAILED.AddressNotQualified`, told in the callback only"
    23 "fifth_change" Both: fails(&faults::FIFTH_CHANGE);
        "The fifth change of the month: fails with `REQUEST_FAILED.PlanChangeLimitExceeded`"
    24 "already_on_plan" Both: on_plan(When::Due);
        "The device is on the plan before it is asked for: fails with `REQUEST_FAILED.SamePlan`; the device list of any plan has its serials 0 to 15, at any time"

    // === When a callback comes ===
    31 "lost" Both: told(When::Never);
        "Executed with success, never called back"
    32 "lost_and_failed" Both: Does::Device(Fate {
            ending: Ending::Fails(&faults::UNEXPECTED), when: When::Never, ..PLAIN
        });
        "Fails, and is never called back"
    33 "lost_already_on_plan" Both: on_plan(When::Never);
        "As `already_on_plan`, and never called back: a look at the device list that is not compared with one from before would mislead"
    34 "late" Both: told(When::Late);
        "Executed in time, called back `sandbox.late_by` later"
    35 "early" Both: told(When::Early);
        "Called back before the request is answered; the answer waits for it, 10 s at most"
    36 "reversed" Both: Does::Reversed;
        "The devices of the request are told in reverse order"
    37 "duplicate" Both: copied(Copies::TwoInTurn);
        "Called back again after the first was acknowledged"
    38 "duplicate_at_once" Both: copied(Copies::TwoAtOnce);
        "Called back twice at the same time"

    // === More than one callback ===
    41 "warning_then_success" Both: first(Interim::Warning, Ending::Succeeds);
        "Called back with status `warning`, `sandbox.interim_for` later with success"
    42 "warning_then_failure" Both: first(Interim::Warning, Ending::Fails(&faults::UNEXPECTED));
        "Called back with status `warning`, then with `REQUEST_FAILED.UnexpectedError`"
    43 "on_hold_then_cancelled" Both: first(Interim::OnHold, Ending::Fails(&faults::CANCELLED));
        "Called back with a `REQUEST_ONHOLD` fault, then with a `REQUEST_CANCELLED` one"
    44 "on_hold_then_success" Both: first(Interim::OnHold, Ending::Succeeds);
        "Called back with a `REQUEST_ONHOLD` fault, then with success"
    45 "warning_only" Both: Does::Device(Fate {
            first: Some(Interim::Warning), when: When::Never, ..PLAIN
        });
        "Called back with status `warning`, then succeeds and is never called back again"

    // === How a callback looks ===
    51 "malformed_cut" Both: shaped(Shape::Cut);
        "The callback's JSON ends in the middle, in every try"
    52 "malformed_no_brace" Both: shaped(Shape::NoBrace);
        "The callback lacks its opening brace, as seen in the field"
    53 "malformed_no_request_id" Both: shaped(Shape::NoRequestId);
        "The callback has no `requestId`"
    54 "no_status" Both: shaped(Shape::NoStatus);
        "A success without `status`"
    55 "fault_without_status" Both: failing(Shape::NoStatus);
        "A `faultResponse` without `status`"
    56 "failed_without_fault" Both: failing(Shape::NoFault);
        "Status `Failed` without a `faultResponse`"
    57 "fault_with_detail" Both: failing(Shape::OldFault);
        "A `faultResponse` that also has `faultactor` and `detail`, as in the older model"
    58 "response_array" Both: shaped(Shape::Array);
        "`deviceResponse` is an array, as the tables say it"
    59 "counts_as_text" Both: shaped(Shape::CountsAsText);
        "`callbackCount` and `maxCallbackThreshold` are texts, as the tables say it"
    60 "mdn_only" FiveGBi: shaped(Shape::MdnOnly);
        "The callback names the `mdn` alone, whatever was sent: only the device list tells which device that is"

    // === The answer to the request, which is executed ===
    61 "slow_answer" Both: Does::Reply(Reply::Slow);
        "Executed at once, answered after `sandbox.slow_answer`"
    62 "dropped_after" Both: Does::Reply(Reply::Dropped);
        "Executed, then the connection is dropped without an answer"
    63 "dropped_within" Both: Does::Reply(Reply::DroppedWithin);
        "Executed, then the connection is dropped in the middle of the answer"
    64 "error_executed" Both: Does::Reply(Reply::Failed);
        "Executed, and answered with 500"
    65 "html_executed" Both: Does::Reply(Reply::Html);
        "Executed, and answered with 502 and a page in HTML"
    66 "answer_without_request_id" Both: Does::Reply(Reply::NoRequestId);
        "Executed, and answered with 200 and no `requestId`"
    67 "empty_answer" Both: Does::Reply(Reply::Empty);
        "Executed, and answered with 200 and no body"

    // === The request is not executed ===
    71 "dropped_before" Both: Does::Before(Before::Dropped);
        "Not executed: the connection is dropped, each time"
    72 "error_not_executed" Both: Does::Before(Before::Failed);
        "Not executed: answered with the same 500 as `error_executed`, each time"
    73 "refused_fifth_change" Both: Does::Before(Before::Refused(Rule::FifthChange));
        "Not executed: 400 with `REQUEST_FAILED.PlanChangeLimitExceeded`, each time"
    74 "refused_device_not_found" Both: Does::Before(Before::Refused(Rule::DeviceNotFound));
        "Not executed: 400 with `REQUEST_FAILED.DeviceNotFound`, each time"

    // === Refused once for each serial, then executed ===
    81 "token_expired" Both: Does::Before(Before::Token(TokenRefusal::Expired));
        "Not executed with the token that it first came with: 401 and fault 900901; the next token request gets another token"
    82 "token_expired_xml" Both: Does::Before(Before::Token(TokenRefusal::ExpiredXml));
        "As `token_expired`, with the fault in XML"
    83 "wrong_authentication_xml" Both: Does::Before(Before::Token(TokenRefusal::WrongXml));
        "As `token_expired`, with 403 and the XML of the error page, code 404"
    84 "session_expired" Both: Does::Before(Before::Session(SessionRefusal::Expired));
        "Not executed with the session that it first came with: 400 and `REQUEST_FAILED.SessionToken.Expired`"
    85 "session_replaced" Both: Does::Before(Before::Session(SessionRefusal::Replaced));
        "Not executed with the session that it first came with: 400 and `INPUT_INVALID.SessionToken.Invalid`"
    86 "session_bare" Both: Does::Before(Before::Session(SessionRefusal::Bare));
        "Not executed with the session that it first came with: 401 without a body"
    87 "throttled_retry_after" Both: Does::Before(Before::Throttled(Throttle::WithRetryAfter));
        "Not executed the first time: 429, fault 900800 and `Retry-After: 1`"
    88 "throttled" Both: Does::Before(Before::Throttled(Throttle::WithoutRetryAfter));
        "Not executed the first time: 429 and fault 900803, no `Retry-After`"
    89 "throttled_burst" Both: Does::Before(Before::Throttled(Throttle::Burst));
        "Not executed the first time: 503 and fault 900807"
    90 "throttled_bare" Both: Does::Before(Before::Throttled(Throttle::Bare));
        "Not executed the first time: 429 without a body"
};
