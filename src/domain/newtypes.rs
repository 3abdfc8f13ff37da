//! Validated text values.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    clock::Timestamp,
    violation::{FieldError, FieldReason},
};

/// The gateway's id of a change: a UUID, version 7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChangeId(Uuid);

/// ThingSpace's id of a request. It is opaque and not always a UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

/// A ThingSpace billing account: 3 to 32 letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccountName(String);

/// The name of a callback service of ThingSpace, such as `CarrierService`: 1 to 64 letters and digits. The
/// set of names is open.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallbackService(String);

/// The name or code of a service plan: 1 to 128 characters that ThingSpace accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServicePlan(String);

/// A client's idempotency key: 1 to 64 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

/// A client's label for a change or a device: at most 64 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientReference(String);

/// An invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}")]
pub struct ParseFieldError {
    expected: &'static str,
    reason: FieldReason,
}

impl FieldError for ParseFieldError {
    fn reason(&self) -> FieldReason {
        self.reason
    }
}

/// The characters for which ThingSpace rejects a whole request with
/// `INPUT_INVALID.Request.InvalidCharacter` ("Synchronous Error Messages").
const REJECTED_CHARACTERS: [char; 3] = ['\'', '<', '\\'];

/// True if ThingSpace accepts the text in a request.
pub fn is_sendable(text: &str) -> bool {
    !text.chars().any(|c| REJECTED_CHARACTERS.contains(&c) || c.is_control())
}

impl ChangeId {
    /// Creates an id that sorts by `now`.
    pub fn new(now: Timestamp) -> Self {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos)))
    }

    /// Returns the 16 bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Creates an id from the 16 bytes of a UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Parses a UUID of any version, with or without dashes.
    pub fn parse(text: &str) -> Result<Self, ParseFieldError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseFieldError {
            expected: "must be a UUID",
            reason: FieldReason::Format,
        })
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ClientReference {
    /// True if the client sent no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

macro_rules! text {
    ($name:ident, $max:literal, $check:expr, $otherwise:ident, $expected:literal) => {
        impl $name {
            /// Parses a value.
            pub fn parse(text: impl Into<String>) -> Result<Self, ParseFieldError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    Err(ParseFieldError {
                        expected: $expected,
                        reason: match text.chars().count() {
                            _ if text.trim().is_empty() => FieldReason::Required,
                            length if length > $max => FieldReason::TooLong,
                            _ => FieldReason::$otherwise,
                        },
                    })
                }
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    RequestId,
    128,
    |text| (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()),
    Character,
    "must be 1 to 128 printable ASCII characters without spaces"
);
text!(
    AccountName,
    32,
    |text| (3..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
    Format,
    "must be 3 to 32 letters, digits and dashes, such as 0000123456-00001"
);
text!(
    CallbackService,
    64,
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()),
    Format,
    "must be 1 to 64 letters and digits, such as CarrierService"
);
text!(
    ServicePlan,
    128,
    |text| (1..=128).contains(&text.chars().count())
        && is_sendable(text)
        && !text.trim().is_empty(),
    Character,
    "must be 1 to 128 characters, none of them ', <, \\ or a control character, which ThingSpace rejects"
);
text!(
    IdempotencyKey,
    64,
    |text| (1..=64).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)),
    Character,
    "must be 1 to 64 printable ASCII characters"
);
text!(
    ClientReference,
    64,
    |text| text.chars().count() <= 64 && !text.chars().any(char::is_control),
    Character,
    "must be at most 64 characters, none of them a control character"
);
