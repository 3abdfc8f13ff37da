//! The encodings of ids, conditions and kinds in columns.

use crate::{
    domain::{result::Match, state::ChangeState},
    journal::{apply::Row, record::DEVICES_PER_BLOCK, sql::value::state_code},
};

/// Bits of the number of a block, a part, or a device in an id.
const PART_BITS: u32 = 20;

/// Returns the id of a part of a change: of a device, a block of devices, or a part of their index.
pub(super) fn part_id(change: Row, part: impl TryInto<i64>) -> i64 {
    let change = i64::try_from(change).unwrap_or(i64::MAX);
    change << PART_BITS | part.try_into().unwrap_or(i64::MAX)
}

/// Returns the range of the ids of all parts of a change.
pub(super) fn part_ids(change: Row) -> [i64; 2] {
    [part_id(change, 0), part_id(change, (1 << PART_BITS) - 1)]
}

/// Returns the part of an id.
pub(super) fn part_number(id: i64) -> u32 {
    u32::try_from(id & ((1 << PART_BITS) - 1)).unwrap_or_default()
}

/// The conditions of the partial indexes over changes. SQLite uses such an index only for a query that
/// repeats its condition.
pub(super) const IS_OPEN: &str = "state IN (1, 2, 3, 5, 9)";
pub(super) const IS_FINAL: &str = "state IN (4, 6, 7, 8) AND trimmed = 0";

pub(super) const HAS_SEVERAL_BLOCKS: &str = "device_count > 16";
const _: () = assert!(DEVICES_PER_BLOCK == 16, "see HAS_SEVERAL_BLOCKS and the schema");

/// Returns the numbers of the matching states, for `state IN (…)`.
pub(super) fn state_codes(is_wanted: impl Fn(ChangeState) -> bool) -> String {
    let wanted = ChangeState::ALL.into_iter().filter(|state| is_wanted(*state));
    wanted.map(|state| state_code(state).to_string()).collect::<Vec<_>>().join(", ")
}

/// The kind of an event: a state, or a result with its kind of match.
pub(super) const STATE_EVENT: i64 = 0;

pub(super) fn result_kind(matched: Option<Match>) -> i64 {
    match matched {
        Some(Match::Exact) => 1,
        Some(Match::Assumed) => 2,
        Some(Match::None) => 3,
        Some(Match::Ambiguous) => 4,
        None => 5,
    }
}

pub(super) fn match_from_kind(kind: i64) -> Option<Match> {
    match kind {
        1 => Some(Match::Exact),
        2 => Some(Match::Assumed),
        3 => Some(Match::None),
        4 => Some(Match::Ambiguous),
        _ => None,
    }
}
