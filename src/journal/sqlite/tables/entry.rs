//! What is written, and how it is spelled in the tables.

use rusqlite::types::Type;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::domain::{
    change::{Change, SentDevice},
    identifier::ReportedId,
    newtypes::{CallbackService, ChangeId},
    result::{DeviceResult, Match, Outcome, ResultPrecedence, ResultSource},
    state::{ChangeState, Transition},
};

/// One fact of the log. From its entries alone all tables can be made again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::journal) enum LogEntry {
    /// A change was put on record.
    Queued {
        /// The change.
        change: Box<Change>,
        /// The fingerprint of its content, in hexadecimal.
        fingerprint: String,
        /// Its devices.
        devices: Vec<SentDevice>,
    },
    /// A change took a step.
    Transition {
        /// The change.
        change_id: ChangeId,
        /// The step.
        transition: Transition,
    },
    /// A result arrived.
    Result {
        /// What it says.
        report: Box<DeviceResult>,
        /// Its content's digest, in hexadecimal.
        digest: String,
        /// The callback service that delivered it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<CallbackService>,
    },
    /// A look-up told which device results were of that matched none. A version that does not know
    /// this never reads it: it is in the timeline as a state alone.
    DeviceResolved {
        /// The change.
        change_id: ChangeId,
        /// The device, by index.
        device: u32,
        /// All its identifiers, by ThingSpace's device list.
        ids: Vec<ReportedId>,
    },
}

/// JSON of a value of ours.
pub(in crate::journal) fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A value of ours from its JSON.
pub(in crate::journal) fn from_json<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

/// A position as SQLite keeps it.
pub(in crate::journal) fn int(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// A position or index from SQLite.
pub(in crate::journal) fn uint<T: TryFrom<i64> + Default>(value: i64) -> T {
    T::try_from(value).unwrap_or_default()
}

/// States as numbers; never renumbered.
pub(in crate::journal) fn state_code(state: ChangeState) -> i64 {
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

/// Verdicts as numbers that sort by weight; never renumbered.
pub(in crate::journal) fn precedence_code(verdict: ResultPrecedence) -> i64 {
    let source = match verdict.source {
        ResultSource::Reconciled => 0,
        ResultSource::Operator => 2,
        ResultSource::Callback => 4,
    };
    source + i64::from(verdict.outcome == Outcome::Succeeded)
}

/// The verdict of a number.
pub(in crate::journal) fn precedence_from_code(code: i64) -> ResultPrecedence {
    ResultPrecedence {
        source: match code / 2 {
            0 => ResultSource::Reconciled,
            1 => ResultSource::Operator,
            _ => ResultSource::Callback,
        },
        outcome: if code % 2 == 1 {
            Outcome::Succeeded
        } else {
            Outcome::Failed
        },
    }
}

/// Matches as numbers; never renumbered.
pub(in crate::journal) fn match_code(matched: Match) -> i64 {
    match matched {
        Match::Exact => 1,
        Match::Assumed => 2,
        Match::None => 3,
        Match::Ambiguous => 4,
    }
}

/// The match of a number.
pub(in crate::journal) fn match_from_code(code: i64) -> Match {
    match code {
        1 => Match::Exact,
        2 => Match::Assumed,
        4 => Match::Ambiguous,
        _ => Match::None,
    }
}
