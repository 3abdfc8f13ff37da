//! The trace context of a change.

use serde::{Deserialize, Serialize};

/// A W3C `traceparent`, version 00. It is stored with a change, so that the span of a late result can link
/// to the call that sent the change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceParent(String);

impl TraceParent {
    /// Parses the value of a `traceparent` header ("W3C Trace Context", section 3.2).
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next_hex = |length| {
            let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex))
        };
        let (version, trace, span, _) = (next_hex(2)?, next_hex(32)?, next_hex(16)?, next_hex(2)?);
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let has_ids = !is_zero(trace) && !is_zero(span);
        (version == "00" && has_ids && parts.next().is_none()).then(|| Self(text.to_owned()))
    }

    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
