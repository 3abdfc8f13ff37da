//! The trace context of a change.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A W3C `traceparent`, version 00. It is stored with a change, so that the span of a late result can link
/// to the call that sent the change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TraceParent(String);

impl TraceParent {
    /// Parses the value of a `traceparent` header ("W3C Trace Context", section 3.2).
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
        let valid = version == "00"
            && is_hex(trace, 32)
            && is_nonzero(trace)
            && is_hex(span, 16)
            && is_nonzero(span)
            && is_hex(flags, 2)
            && parts.next().is_none();
        valid.then(|| Self(text.to_owned()))
    }

    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
