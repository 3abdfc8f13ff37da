//! Page sizes and page tokens (AIP-158).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

use crate::domain::violation::{FieldPath, FieldReason, Violations};

/// Maximum size of the rows of a page in bytes. gRPC clients reject responses above 4 MiB by default. One row
/// is smaller than the other 2 MiB.
pub(super) const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Returns the number of rows of a page. A request without a size gets `default`.
pub(super) fn parse_page_size(
    size: i32,
    default: usize,
    max: usize,
    violations: &mut Violations,
) -> usize {
    match usize::try_from(size) {
        Ok(0) => default,
        Ok(size) => size.min(max),
        Err(_) => {
            let description = "must not be negative";
            violations.add(FieldPath::root("page_size"), FieldReason::Value, description);
            default
        }
    }
}

/// Hashes the filters of a list request (FNV-1a). They must be the same for all pages.
pub(super) fn hash_filters(request: &impl Message) -> u64 {
    let bytes = request.encode_to_vec();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Encodes the token of the page after `cursor`.
pub(super) fn encode_page_token(filters: u64, cursor: &[u64]) -> String {
    let words = std::iter::once(&filters).chain(cursor);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the cursor of a token that was issued for the same filters. `None` for the first page.
pub(super) fn decode_page_token(
    token: &str,
    filters: u64,
    violations: &mut Violations,
) -> Option<Vec<u64>> {
    if token.is_empty() {
        return None;
    }
    let words: Option<Vec<u64>> = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        rest.is_empty().then_some(words)
    });
    match words.as_deref() {
        Some([hash, cursor @ ..]) if *hash == filters => Some(cursor.to_vec()),
        _ => {
            let description = "is not the next_page_token of a call with the same filters";
            violations.add(FieldPath::root("page_token"), FieldReason::Value, description);
            None
        }
    }
}
