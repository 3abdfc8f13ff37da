//! Errors of settings, and the sources of values.

use std::collections::BTreeMap;

/// Maximum number of characters of an invalid value that an error repeats.
const MAX_VALUE_CHARS: usize = 80;

/// Source of each key that is set: a flag such as `--journal.dir`, the name of an environment variable,
/// or the path of the settings file.
pub type Origins = BTreeMap<&'static str, String>;

/// An invalid setting, or an invalid combination of settings.
///
/// `Display` is one line: the key, its source, the value (never that of a secret) and the values that
/// are valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct ConfigError {
    key: String,
    line: String,
}

impl ConfigError {
    /// Describes a problem with a key. `origin` is the source that set the key, if any.
    pub fn new(key: &str, origin: Option<&str>, problem: &str) -> Self {
        let line = match origin {
            Some(origin) => format!("{key} from {origin}: {problem}"),
            None => format!("{key}: {problem}"),
        };
        Self { key: one_line(key), line: one_line(&line) }
    }

    /// Rejects a value. `None` hides it. Truncates a long one.
    pub(crate) fn bad_value(key: &str, origin: &str, value: Option<&str>, expected: &str) -> Self {
        let got = match value {
            None => "<hidden>".to_owned(),
            Some(value) if value.chars().count() <= MAX_VALUE_CHARS => format!("{value:?}"),
            Some(value) => {
                format!("{:?}…", value.chars().take(MAX_VALUE_CHARS).collect::<String>())
            }
        };
        Self::new(key, Some(origin), &format!("got {got}, expected {expected}"))
    }

    /// The key, such as `grpc.listen`. An unknown key is returned as it was written.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Escapes line breaks and terminal control characters.
pub(crate) fn one_line(text: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let escape = |c: char| if is_break(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(escape).collect()
}
