//! Detects callbacks that the gateway forwarded to itself.
//!
//! The forwarder sends its id in a header, and the callback listener rejects requests with its own id.
//! A loop through another gateway ends even if that one replaces the header: the callback comes back
//! as a duplicate, and duplicates are not forwarded.

use crate::journal::Journal;

/// Header of a forwarded callback, and of the response that rejects it as a loop.
pub const FORWARDED_BY: &str = "thingspace-gateway-forwarded";

/// Returns the id of the gateway: 32 hexadecimal digits.
///
/// The id derives from a random key of the journal. All processes that use the journal have the same
/// id, also after a restart, and the id does not reveal the key.
pub fn forwarder_id(journal: &dyn Journal) -> String {
    let mac = journal.fingerprint(FORWARDED_BY.as_bytes());
    mac.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
