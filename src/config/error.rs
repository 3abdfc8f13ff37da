//! What is wrong with a setting, in one line, and where a setting came from.

use std::fmt;
use std::path::PathBuf;

/// The most characters of a bad value that an error repeats.
const LONGEST_VALUE: usize = 80;

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// A command-line flag, as spelled: `--journal.dir`.
    Flag(String),
    /// An environment variable, by name.
    Environment(String),
    /// The settings file, by path.
    File(PathBuf),
    /// Nobody set it: the documented default, or the one of a mode such as `serve --sandbox`.
    Default,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting that stops the start.
///
/// Its `Display` is one line: the key, where it came from, the value (never a secret's) and what was
/// expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    line: String,
}

impl ConfigError {
    /// The key that is at fault, such as `grpc.listen`; for one that does not exist, as it was written.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A value that its key does not accept; `None` where the value must not be repeated.
    pub(super) fn bad_value(
        key: &str,
        origin: &SettingOrigin,
        value: Option<&str>,
        expected: &str,
    ) -> Self {
        let got = value.map_or_else(|| "<hidden>".to_owned(), quoted);
        Self::new(
            key,
            Some(origin),
            &format!("got {got}, expected {expected}"),
        )
    }

    /// Any other fault; `origin` where one source is to blame.
    pub(super) fn new(key: &str, origin: Option<&SettingOrigin>, fault: &str) -> Self {
        let line = match origin {
            Some(origin) => format!("{key} from {origin}: {fault}"),
            None => format!("{key}: {fault}"),
        };
        Self {
            key: one_line(key),
            line: one_line(&line),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for ConfigError {}

/// The value in quotes, shortened.
fn quoted(value: &str) -> String {
    if value.chars().count() <= LONGEST_VALUE {
        return format!("{value:?}");
    }
    let head: String = value.chars().take(LONGEST_VALUE).collect();
    format!("{head:?}…")
}

/// The text with everything escaped that could break the line or drive a terminal.
pub(super) fn one_line(text: &str) -> String {
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
