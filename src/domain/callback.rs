//! A result on its way to the journal.

use aws_lc_rs::digest;
use secrecy::SecretString;

use crate::domain::result::DeviceResult;

/// A callback, or the finding of a lookup in the same form.
#[derive(Debug, Clone)]
pub struct Callback {
    /// The result of one device.
    pub result: DeviceResult,
    /// The user name in the body; `None` if it is absent or empty.
    pub username: Option<SecretString>,
    /// The password in the body; `None` if it is absent or empty.
    pub password: Option<SecretString>,
    /// SHA-256 of the content. Repeated deliveries of a callback have the same digest.
    pub digest: [u8; 32],
    /// The body without user name and password; empty for a lookup.
    pub raw_json: String,
}

impl Callback {
    /// Wraps the finding of a lookup. The same finding always has the same digest.
    pub fn from_lookup(result: DeviceResult) -> Self {
        let mut ids = result.device_ids.clone();
        ids.sort_unstable();
        let content = format!("{:?} {:?} {:?}", result.source, result.outcome, ids);
        Self {
            digest: sha256(content.as_bytes()),
            result,
            username: None,
            password: None,
            raw_json: String::new(),
        }
    }
}

/// Returns the SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}
