//! The gRPC contract.

mod account_watches;
mod errors;
mod get_and_list;
mod lifecycle;
mod list_devices;
mod v1;
mod watches;

/// A request ID in the format of ThingSpace.
const REQUEST: &str = "d1f08526-5443-4054-9a29-4456490ea9f8";
/// An ID of no change and no request.
const UNKNOWN_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
