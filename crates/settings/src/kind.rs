//! Kinds of values: parsing, formatting and description.

use std::{
    fmt::Display,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};
use url::Url;

/// Parses, formats and describes values of one type.
pub trait Kind {
    /// Type of the parsed value.
    type Value;
    /// Describes the valid values.
    fn describe(&self) -> Description;
    /// Returns the value, or `None` if the text is invalid.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// Formats the value as TOML that `parse` accepts.
    fn toml(&self, value: &Self::Value) -> String;
}

/// The valid values of a setting, for errors, help and documentation.
pub struct Description {
    /// Valid values, as a phrase that can follow the word "expected".
    pub accepts: String,
    /// Placeholder of the value in the help of a flag.
    pub placeholder: &'static str,
    /// Syntax of the value in flags and in the file.
    pub syntax: Syntax,
    /// JSON Schema of the value.
    pub schema: Value,
}

/// Syntax of values in flags and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// A string or a number.
    Scalar,
    /// A boolean. The flag without a value means `true`.
    Switch,
    /// An array in the file. In text, commas separate the elements.
    List,
    /// A URL. Errors do not repeat an invalid one that may contain credentials.
    Url,
    /// A secret, which errors never repeat. It has no flag, because other users of the machine can
    /// read the arguments of a process.
    Secret,
    /// A URL that may contain a secret. It has a flag, because most URLs contain none.
    SecretUrl,
}

impl Description {
    /// Describes values that are strings in the file.
    pub fn scalar(accepts: impl Into<String>, placeholder: &'static str) -> Self {
        Self {
            accepts: accepts.into(),
            placeholder,
            syntax: Syntax::Scalar,
            schema: json!({ "type": "string" }),
        }
    }
}

/// Formats a text as a TOML string.
pub fn toml_string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An IP address with a port. A port without an address means every IPv4 address.
pub struct SocketAddress;

impl Kind for SocketAddress {
    type Value = SocketAddr;
    fn describe(&self) -> Description {
        let accepts =
            "an IP address with a port, such as `127.0.0.1:9001`, `[::1]:9001` or `:9001` for any";
        Description::scalar(accepts, "ADDRESS")
    }
    fn parse(&self, text: &str) -> Option<SocketAddr> {
        match text.strip_prefix(':') {
            Some(port) => Some((Ipv4Addr::UNSPECIFIED, port.parse().ok()?).into()),
            None => text.parse().ok(),
        }
    }
    fn toml(&self, value: &SocketAddr) -> String {
        toml_string(&value.to_string())
    }
}

/// A boolean.
pub struct Switch;

impl Kind for Switch {
    type Value = bool;
    fn describe(&self) -> Description {
        Description {
            syntax: Syntax::Switch,
            schema: json!({ "type": "boolean" }),
            ..Description::scalar("`true` or `false`", "BOOL")
        }
    }
    fn parse(&self, text: &str) -> Option<bool> {
        text.parse().ok()
    }
    fn toml(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A number from `min` to `max`, inclusive.
pub struct Number<T> {
    /// Smallest valid value.
    pub min: T,
    /// Largest valid value.
    pub max: T,
}

impl<T: Display + FromStr + PartialOrd> Kind for Number<T> {
    type Value = T;
    fn describe(&self) -> Description {
        let Self { min, max } = self;
        let number = |bound: &T| bound.to_string().parse::<serde_json::Number>().ok();
        Description {
            schema: json!({ "type": "number", "minimum": number(min), "maximum": number(max) }),
            ..Description::scalar(format!("a number from {min} to {max}"), "NUMBER")
        }
    }
    fn parse(&self, text: &str) -> Option<T> {
        let number = text.parse().ok()?;
        (self.min <= number && number <= self.max).then_some(number)
    }
    fn toml(&self, value: &T) -> String {
        let text = value.to_string();
        // A TOML integer is an i64. Larger numbers are written as strings, which `parse` accepts.
        if text.parse::<i64>().is_ok() || text.contains('.') { text } else { toml_string(&text) }
    }
}

/// A duration from `min` to `max`, inclusive. Both have the syntax of a value.
pub struct DurationRange {
    /// Shortest valid duration.
    pub min: &'static str,
    /// Longest valid duration.
    pub max: &'static str,
}

impl Kind for DurationRange {
    type Value = Duration;
    fn describe(&self) -> Description {
        let Self { min, max } = self;
        let accepts = format!("a duration with its unit, from `{min}` to `{max}`");
        Description::scalar(accepts, "DURATION")
    }
    fn parse(&self, text: &str) -> Option<Duration> {
        let [min, max, duration] = [self.min, self.max, text].map(humantime::parse_duration);
        let duration = duration.ok()?;
        (min.ok()?..=max.ok()?).contains(&duration).then_some(duration)
    }
    fn toml(&self, value: &Duration) -> String {
        toml_string(&format_duration(*value))
    }
}

/// Formats a duration in the largest unit that divides it: `400d`, `90m`. (humantime uses months and
/// years.)
pub fn format_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let nanos = duration.as_nanos();
    UNITS
        .iter()
        .map(|(millis, name)| (millis * 1_000_000, name))
        .find(|(unit, _)| nanos.is_multiple_of(*unit))
        .map_or_else(|| format!("{nanos}ns"), |(unit, name)| format!("{}{name}", nanos / unit))
}

/// Path of a file or directory. A relative path starts at the working directory.
pub struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;
    fn describe(&self) -> Description {
        Description::scalar("a path", "PATH")
    }
    fn parse(&self, text: &str) -> Option<PathBuf> {
        let is_valid = !text.is_empty() && !text.contains('\0');
        is_valid.then(|| PathBuf::from(text))
    }
    fn toml(&self, value: &PathBuf) -> String {
        toml_string(&value.to_string_lossy())
    }
}

/// An http or https URL without credentials, query or fragment.
pub struct HttpUrl;

impl Kind for HttpUrl {
    type Value = Url;
    fn describe(&self) -> Description {
        let accepts = "an `http` or `https` URL without credentials, query or fragment";
        Description { syntax: Syntax::Url, ..Description::scalar(accepts, "URL") }
    }
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

/// An element of a list. Its text contains no comma.
pub trait ListItem: Display + Sized + 'static {
    /// Valid values, in the plural.
    const ACCEPTS: &'static str;
    /// Returns the value, or `None` if the text is invalid.
    fn parse(text: &str) -> Option<Self>;
}

/// A list of any length. In text, commas separate the elements, and an empty text is an empty list.
pub struct ListOf<T>(PhantomData<fn() -> T>);

/// Returns the kind for lists of `T`.
pub const fn list_of<T: ListItem>() -> ListOf<T> {
    ListOf(PhantomData)
}

impl<T: ListItem> Kind for ListOf<T> {
    type Value = Vec<T>;
    fn describe(&self) -> Description {
        Description {
            syntax: Syntax::List,
            schema: json!({ "type": "array", "items": { "type": "string" } }),
            ..Description::scalar(format!("a list of {}", T::ACCEPTS), "LIST")
        }
    }
    fn parse(&self, text: &str) -> Option<Vec<T>> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        text.split(',').map(|item| T::parse(item.trim())).collect()
    }
    fn toml(&self, value: &Vec<T>) -> String {
        let items: Vec<_> = value.iter().map(|item| toml_string(&item.to_string())).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A network, or a single address.
impl ListItem for IpNet {
    const ACCEPTS: &'static str = "networks such as `192.0.2.0/24` or single addresses";
    fn parse(text: &str) -> Option<Self> {
        let address = || text.parse::<IpAddr>().ok().map(Self::from);
        text.parse().ok().or_else(address)
    }
}
