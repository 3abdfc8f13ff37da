//! Enums as numbers. Numbers are never reused.

use crate::domain::{
    device_states::DeviceRef,
    result::{Match, Outcome, ResultPrecedence, ResultSource},
    state::ChangeState,
};
use crate::journal::sqlite::tables::encoding::uint;

pub(super) fn state_code(state: ChangeState) -> i64 {
    match state {
        ChangeState::Queued => 1,
        ChangeState::Dispatched => 2,
        ChangeState::Accepted => 3,
        ChangeState::Finished => 4,
        ChangeState::Overdue => 5,
        ChangeState::Closed => 6,
        ChangeState::Rejected => 7,
        ChangeState::NotSent => 8,
        ChangeState::OutcomeUnknown => 9,
    }
}

/// Encodes a precedence. Higher numbers take precedence; successes are odd.
pub(super) fn precedence_code(precedence: ResultPrecedence) -> i64 {
    let source = match precedence.source {
        ResultSource::Reconciled => 0,
        ResultSource::Operator => 2,
        ResultSource::Callback => 4,
    };
    source + i64::from(precedence.outcome == Outcome::Succeeded)
}

pub(super) fn precedence_from_code(code: i64) -> ResultPrecedence {
    ResultPrecedence {
        source: match code / 2 {
            0 => ResultSource::Reconciled,
            1 => ResultSource::Operator,
            _ => ResultSource::Callback,
        },
        outcome: if code % 2 == 1 { Outcome::Succeeded } else { Outcome::Failed },
    }
}

pub(super) fn match_code(matched: Match) -> i64 {
    match matched {
        Match::Exact => 1,
        Match::Assumed => 2,
        Match::None => 3,
        Match::Ambiguous => 4,
    }
}

pub(super) fn match_from_code(code: i64) -> Match {
    match code {
        1 => Match::Exact,
        2 => Match::Assumed,
        4 => Match::Ambiguous,
        _ => Match::None,
    }
}

/// Encodes a device as its index, and an unmatched result as a negative number.
pub(super) fn device_ref_code(device: DeviceRef) -> i64 {
    match device {
        DeviceRef::Device(index) => i64::from(index),
        DeviceRef::UnmatchedResult(first_result) => -1 - first_result,
    }
}

pub(super) fn device_ref_from_code(code: i64) -> DeviceRef {
    if code < 0 { DeviceRef::UnmatchedResult(-1 - code) } else { DeviceRef::Device(uint(code)) }
}
