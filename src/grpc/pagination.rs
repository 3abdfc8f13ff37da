//! Page sizes and page tokens (AIP-158).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

use crate::domain::violation::{FieldReason, Violations};

/// Maximum size of the rows of a page in bytes. gRPC clients reject responses above 4 MiB by default. One row
/// is smaller than the other 2 MiB.
pub(super) const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The page that a list request selects.
pub(super) struct PageRequest {
    /// Maximum number of rows.
    pub(super) limit: usize,
    /// The numbers in the token; empty for the first page.
    pub(super) cursor: Vec<u64>,
    filters_hash: u64,
}

impl PageRequest {
    /// Parses `page_size` and `page_token`. `filters` is the request without them: it must be the same for all
    /// pages. A request without a size gets `default_size`.
    pub(super) fn parse(
        size: i32,
        token: &str,
        filters: &impl Message,
        default_size: usize,
        max_size: usize,
        violations: &mut Violations,
    ) -> Self {
        let limit = match usize::try_from(size) {
            Ok(0) => default_size,
            Ok(size) => size.min(max_size),
            Err(_) => {
                let description = "must not be negative";
                violations.add("page_size", FieldReason::Value, description);
                default_size
            }
        };
        // FNV-1a.
        let filters_hash =
            filters.encode_to_vec().into_iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let cursor = match decode_words(token).as_deref() {
            Some([]) => Vec::new(),
            Some([hash, cursor @ ..]) if *hash == filters_hash => cursor.to_vec(),
            _ => {
                let description = "is not the next_page_token of a call with the same filters";
                violations.add("page_token", FieldReason::Value, description);
                Vec::new()
            }
        };
        Self { limit, cursor, filters_hash }
    }

    /// Encodes the token of the page after `cursor`.
    pub(super) fn next_token(&self, cursor: &[u64]) -> String {
        let words = std::iter::once(&self.filters_hash).chain(cursor);
        URL_SAFE_NO_PAD.encode(words.flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>())
    }
}

fn decode_words(token: &str) -> Option<Vec<u64>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (words, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| words.iter().map(|word| u64::from_be_bytes(*word)).collect())
}
