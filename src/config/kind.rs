//! What a value may be: how it is read from text, and how it is written back.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use url::Url;

use super::choices::Choice;

/// What a kind of value tells about itself, in an error, in the help and in the documentation.
pub(super) trait Describe: Sync {
    /// What is accepted, to follow the word "expected".
    fn accepts(&self) -> String;
    /// The word that stands for the value in the help of a flag.
    fn placeholder(&self) -> &'static str;
    /// Whether a TOML array is accepted; in text, commas part the members.
    fn is_list(&self) -> bool {
        false
    }
    /// Whether the flag alone, without a value, means `true`.
    fn is_switch(&self) -> bool {
        false
    }
    /// Whether a secret of this kind can be a flag itself: the arguments of a process can be read by
    /// others on the machine.
    fn has_flag(&self) -> bool {
        false
    }
    /// What of this a JSON Schema can say.
    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
    /// Whether this (bad) value may hold something that no error should repeat.
    fn must_hide(&self, _text: &str) -> bool {
        false
    }
}

/// A kind of value.
pub(super) trait ValueKind: Describe {
    /// What it is in the program.
    type Value;
    /// Reads it, if it is acceptable.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// Writes it as a TOML value that `parse` reads back.
    fn toml(&self, value: &Self::Value) -> String;
}

/// A text as a TOML string.
pub(super) fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

// === Address ===

/// An IP address with a port; a port alone is one on every address.
pub(super) struct SocketAddress;

impl Describe for SocketAddress {
    fn accepts(&self) -> String {
        "an IP address with a port, such as `127.0.0.1:9001`, `[::1]:9001` or `:9001` for any"
            .to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "ADDRESS"
    }
}

impl ValueKind for SocketAddress {
    type Value = SocketAddr;
    fn parse(&self, text: &str) -> Option<SocketAddr> {
        match text.strip_prefix(':') {
            Some(port) => Some(SocketAddr::from((
                Ipv4Addr::UNSPECIFIED,
                port.parse().ok()?,
            ))),
            None => text.parse().ok(),
        }
    }
    fn toml(&self, value: &SocketAddr) -> String {
        toml_string(&value.to_string())
    }
}

// === Switch ===

/// `true` or `false`.
pub(super) struct Switch;

impl Describe for Switch {
    fn accepts(&self) -> String {
        "`true` or `false`".to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "BOOL"
    }
    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
    fn is_switch(&self) -> bool {
        true
    }
}

impl ValueKind for Switch {
    type Value = bool;
    fn parse(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }
    fn toml(&self, value: &bool) -> String {
        value.to_string()
    }
}

// === Number ===

/// A number within bounds, both included.
pub(super) struct Number<T> {
    pub(super) min: T,
    pub(super) max: T,
}

impl<T: Display + Sync> Describe for Number<T> {
    fn accepts(&self) -> String {
        format!("a number from {} to {}", self.min, self.max)
    }
    fn placeholder(&self) -> &'static str {
        "NUMBER"
    }
    fn schema(&self) -> Value {
        let number = |bound: &T| bound.to_string().parse::<serde_json::Number>().ok();
        json!({ "type": "number", "minimum": number(&self.min), "maximum": number(&self.max) })
    }
}

impl<T: Display + FromStr + PartialOrd + Sync> ValueKind for Number<T> {
    type Value = T;
    fn parse(&self, text: &str) -> Option<T> {
        text.parse()
            .ok()
            .filter(|number| (&self.min..=&self.max).contains(&number))
    }
    fn toml(&self, value: &T) -> String {
        let text = value.to_string();
        // TOML's integers are signed: what is beyond them is written as text, which is read as well.
        if text.parse::<i64>().is_ok() || text.contains('.') {
            text
        } else {
            toml_string(&text)
        }
    }
}

// === Span ===

pub(super) const MILLISECOND: u64 = 1;
pub(super) const SECOND: u64 = 1000 * MILLISECOND;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// A duration within bounds, both included and in milliseconds.
pub(super) struct DurationRange {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Describe for DurationRange {
    fn accepts(&self) -> String {
        let bound = |millis| format_duration(Duration::from_millis(millis));
        let (min, max) = (bound(self.min), bound(self.max));
        format!("a duration with its unit, from `{min}` to `{max}`")
    }
    fn placeholder(&self) -> &'static str {
        "DURATION"
    }
}

impl ValueKind for DurationRange {
    type Value = Duration;
    fn parse(&self, text: &str) -> Option<Duration> {
        let bounds = Duration::from_millis(self.min)..=Duration::from_millis(self.max);
        humantime::parse_duration(text)
            .ok()
            .filter(|span| bounds.contains(span))
    }
    fn toml(&self, value: &Duration) -> String {
        toml_string(&format_duration(*value))
    }
}

/// A duration in the largest unit that tells it exactly: `400d`, `90m`. (humantime would count in
/// months and years.)
pub(super) fn format_duration(span: Duration) -> String {
    if span.is_zero() {
        return "0s".to_owned();
    }
    let nanos = span.as_nanos();
    [
        (DAY, "d"),
        (HOUR, "h"),
        (MINUTE, "m"),
        (SECOND, "s"),
        (MILLISECOND, "ms"),
    ]
    .into_iter()
    .map(|(millis, name)| (u128::from(millis) * 1_000_000, name))
    .find(|(unit, _)| nanos.is_multiple_of(*unit))
    .map_or_else(
        || format!("{nanos}ns"),
        |(unit, name)| format!("{}{name}", nanos / unit),
    )
}

// === OneOf ===

/// One of a few words.
pub(super) struct OneOf<T>(PhantomData<fn() -> T>);

/// One of the words of `T`.
pub(super) const fn one_of<T: Choice>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T: Choice> Describe for OneOf<T> {
    fn accepts(&self) -> String {
        let words: Vec<_> = T::ALL.iter().map(|(word, _)| format!("`{word}`")).collect();
        words.join(" or ") + T::NOTE
    }
    fn placeholder(&self) -> &'static str {
        "WORD"
    }
    fn schema(&self) -> Value {
        let words: Vec<_> = T::ALL.iter().map(|(word, _)| *word).collect();
        json!({ "enum": words })
    }
}

impl<T: Choice> ValueKind for OneOf<T> {
    type Value = T;
    fn parse(&self, text: &str) -> Option<T> {
        let found = T::ALL
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, choice)| *choice)
    }
    fn toml(&self, value: &T) -> String {
        let found = T::ALL.iter().find(|(_, choice)| choice == value);
        toml_string(found.map_or("", |(word, _)| word))
    }
}

// === FilePath ===

/// The path of a file or directory. One that is not absolute starts at the working directory.
pub(super) struct FilePath;

impl Describe for FilePath {
    fn accepts(&self) -> String {
        "a path".to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "PATH"
    }
}

impl ValueKind for FilePath {
    type Value = PathBuf;
    fn parse(&self, text: &str) -> Option<PathBuf> {
        let possible = !text.is_empty() && !text.contains('\0');
        possible.then(|| PathBuf::from(text))
    }
    fn toml(&self, value: &PathBuf) -> String {
        toml_string(&value.to_string_lossy())
    }
}

// === HttpUrl ===

/// An http or https URL without credentials, query or fragment.
pub(super) struct HttpUrl;

impl Describe for HttpUrl {
    fn accepts(&self) -> String {
        "an `http` or `https` URL without credentials, query or fragment".to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "URL"
    }
    fn must_hide(&self, text: &str) -> bool {
        // Credentials end with an `@`, and a query may hold a token.
        text.contains(['@', '?', '#'])
    }
}

impl ValueKind for HttpUrl {
    type Value = Url;
    fn parse(&self, text: &str) -> Option<Url> {
        Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        })
    }
    fn toml(&self, value: &Url) -> String {
        toml_string(value.as_str())
    }
}

// === LogFilter ===

/// Directives of tracing's `EnvFilter`.
pub(super) struct LogFilter;

impl Describe for LogFilter {
    fn accepts(&self) -> String {
        "log levels as tracing's `EnvFilter` reads them, such as `info` or `info,tonic=debug`"
            .to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "FILTER"
    }
}

impl ValueKind for LogFilter {
    type Value = String;
    fn parse(&self, text: &str) -> Option<String> {
        let valid = !text.trim().is_empty() && EnvFilter::try_new(text).is_ok();
        valid.then(|| text.to_owned())
    }
    fn toml(&self, value: &String) -> String {
        toml_string(value)
    }
}

// === PlanName ===

/// A service plan, by its name or its code.
pub(super) struct PlanName;

impl Describe for PlanName {
    fn accepts(&self) -> String {
        "1 to 128 printable ASCII characters without `'`, `<` and `\\`".to_owned()
    }
    fn placeholder(&self) -> &'static str {
        "PLAN"
    }
}

impl ValueKind for PlanName {
    type Value = String;
    fn parse(&self, text: &str) -> Option<String> {
        let printable = |c: char| c == ' ' || c.is_ascii_graphic();
        // ThingSpace refuses these three anywhere in a request.
        let allowed = |c: char| printable(c) && !matches!(c, '\'' | '<' | '\\');
        let fits = (1..=128).contains(&text.len()) && !text.trim().is_empty();
        (fits && text.chars().all(allowed)).then(|| text.to_owned())
    }
    fn toml(&self, value: &String) -> String {
        toml_string(value)
    }
}
