//! Identifies credentials without storing them.

use secrecy::{ExposeSecret, SecretString};

use crate::journal::Journal;

/// Returns a MAC of credentials under a key that never leaves the journal.
///
/// Each part is preceded by its length, so different credentials have different input.
pub fn credential_mac<'a>(
    journal: &dyn Journal,
    parts: impl IntoIterator<Item = &'a SecretString>,
) -> [u8; 32] {
    let content: Vec<u8> = parts
        .into_iter()
        .flat_map(|part| {
            let text = part.expose_secret().as_bytes();
            [&text.len().to_be_bytes()[..], text].concat()
        })
        .collect();
    journal.fingerprint(&content)
}
