//! Names of callers.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The name of a caller: 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`. Cheap to clone.
///
/// The policy file gives each caller its name. Logs, metrics and the audit log show it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerName(Arc<str>);

static ANONYMOUS: LazyLock<CallerName> = LazyLock::new(|| CallerName(Arc::from("anonymous")));
static LOCAL: LazyLock<CallerName> = LazyLock::new(|| CallerName(Arc::from("local")));

impl CallerName {
    /// Maximum length.
    pub const MAX_LEN: usize = 64;
    /// The valid names, as a phrase that can follow the word "expected".
    pub const ACCEPTS: &'static str =
        "1 to 64 lower-case letters, digits, dots, underscores and dashes";

    /// Returns the name of the caller that stands for every client while clients are not authenticated.
    pub fn anonymous() -> Self {
        ANONYMOUS.clone()
    }

    /// Returns the name of the caller who uses the admin socket.
    pub fn local() -> Self {
        LOCAL.clone()
    }

    /// True if the name stands for a caller that is not in the policy file.
    pub fn is_reserved(&self) -> bool {
        *self == *ANONYMOUS || *self == *LOCAL
    }

    /// Parses a name. `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_name = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(is_valid);
        is_name.then(|| Self(Arc::from(text)))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CallerName {
    fn default() -> Self {
        Self::anonymous()
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
