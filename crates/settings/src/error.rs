//! Errors of settings, and the sources of values.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Maximum number of characters of an invalid value that an error repeats.
const MAX_VALUE_CHARS: usize = 80;

/// Source of each key that is set.
pub type Origins = BTreeMap<&'static str, SettingOrigin>;

/// Source of a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// A command-line flag, as spelled: `--journal.dir`.
    Flag(String),
    /// An environment variable, by name.
    Environment(String),
    /// The settings file, by path.
    File(PathBuf),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An invalid setting, or an invalid combination of settings.
///
/// `Display` is one line: the key, its source, the value (never that of a secret) and the values that
/// are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    line: String,
}

impl ConfigError {
    /// Describes a problem with a key. `origin` is the source that set the key, if any.
    pub fn new(key: &str, origin: Option<&SettingOrigin>, problem: &str) -> Self {
        let line = match origin {
            Some(origin) => format!("{key} from {origin}: {problem}"),
            None => format!("{key}: {problem}"),
        };
        Self { key: one_line(key), line: one_line(&line) }
    }

    /// Rejects a value. `None` hides it.
    pub(crate) fn bad_value(
        key: &str,
        origin: &SettingOrigin,
        value: Option<&str>,
        expected: &str,
    ) -> Self {
        let got = value.map_or_else(|| "<hidden>".to_owned(), quoted);
        Self::new(key, Some(origin), &format!("got {got}, expected {expected}"))
    }

    /// The key, such as `grpc.listen`. An unknown key is returned as it was written.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for ConfigError {}

/// Quotes a value, and truncates a long one.
fn quoted(value: &str) -> String {
    if value.chars().count() <= MAX_VALUE_CHARS {
        return format!("{value:?}");
    }
    let head: String = value.chars().take(MAX_VALUE_CHARS).collect();
    format!("{head:?}…")
}

/// Escapes line breaks and terminal control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
