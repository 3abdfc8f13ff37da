//! What clients are promised.

mod errors;
mod get_and_list;
mod lifecycle;
mod v1;
mod watches;

/// A request id as ThingSpace makes them.
const REQUEST: &str = "d1f08526-5443-4054-9a29-4456490ea9f8";
/// A name that nothing has.
const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
