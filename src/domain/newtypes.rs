//! Validated text values.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    clock::Timestamp,
    violation::{FieldError, FieldReason},
};

/// The gateway's id of a change: a UUID, version 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChangeId(Uuid);

impl ChangeId {
    /// Creates an id that sorts by `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(new_uuid(now))
    }

    /// Returns the 16 bytes of the UUID.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Formats the id without an allocation.
    pub fn text<'b>(&self, buffer: &'b mut [u8; 36]) -> &'b str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// Creates an id from the 16 bytes of a UUID.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Parses a UUID of any version, with or without dashes.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let error = FieldError { expected: "must be a UUID", reason: FieldReason::Format };
        Uuid::try_parse(text).map(Self).map_err(|_| error)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Creates a UUID, version 7, that sorts by `now`.
pub fn new_uuid(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.as_micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}

/// Defines a text by its length in characters, a check, the reason if the check fails, and the description
/// of a valid text.
macro_rules! text {
    (
        $(#[$attribute:meta])*
        $name:ident, $length:expr, $is_valid:expr, $otherwise:ident, $expected:literal
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Parses a value.
            pub fn parse(text: impl Into<String>) -> Result<Self, FieldError> {
                let text = text.into();
                let is_valid: fn(&str) -> bool = $is_valid;
                let length = text.chars().count();
                if $length.contains(&length) && is_valid(&text) {
                    return Ok(Self(text));
                }
                let reason = match text.trim() {
                    "" => FieldReason::Required,
                    _ if length > *$length.end() => FieldReason::TooLong,
                    _ => FieldReason::$otherwise,
                };
                Err(FieldError { expected: $expected, reason })
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
    /// ThingSpace's id of a request. It is opaque and not always a UUID.
    RequestId,
    1..=128,
    |text| text.bytes().all(|byte| byte.is_ascii_graphic()),
    Character,
    "must be 1 to 128 printable ASCII characters without spaces"
);
text!(
    /// A ThingSpace billing account.
    AccountName,
    3..=32,
    |text| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
    Format,
    "must be 3 to 32 letters, digits and dashes, such as 0000123456-00001"
);
text!(
    /// The name of a callback service of ThingSpace. The set of names is open.
    CallbackService,
    1..=64,
    |text| text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
    Format,
    "must be 1 to 64 letters and digits, such as CarrierService"
);
text!(
    /// The name or code of a service plan.
    ServicePlan,
    1..=128,
    |text| is_sendable(text) && !text.trim().is_empty(),
    Character,
    "must be 1 to 128 characters, none of them ', <, \\ or a control character, which ThingSpace rejects"
);
text!(
    /// A client's idempotency key.
    IdempotencyKey,
    1..=64,
    |text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
    Character,
    "must be 1 to 64 printable ASCII characters"
);
text!(
    /// A client's label for a change or a device.
    #[derive(Default)]
    ClientReference,
    0..=64,
    |text| !text.chars().any(char::is_control),
    Character,
    "must be at most 64 characters, none of them a control character"
);

impl ClientReference {
    /// True if the client sent no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// True if the text has none of the characters for which ThingSpace rejects a whole request with
/// `INPUT_INVALID.Request.InvalidCharacter` ("Synchronous Error Messages").
pub fn is_sendable(text: &str) -> bool {
    !text.chars().any(|c| matches!(c, '\'' | '<' | '\\') || c.is_control())
}
