//! Kinds of values that only this program has.

use thingspace_settings::{Description, Kind, ListItem, SecretFormat, SecretSyntax, toml_string};
use tracing_subscriber::{EnvFilter, filter::ParseError};
use url::Url;

use crate::domain::{
    evidence::ResultService,
    newtypes::{AccountName, CallbackService},
};

/// A credential for ThingSpace.
pub(super) const CREDENTIAL: SecretFormat = SecretFormat::text(1024);

/// A credential of a callback registration, which ThingSpace limits to 40 characters.
pub(super) const CALLBACK_CREDENTIAL: SecretFormat = SecretFormat::text(40);

/// The secret segment of the callback URL.
pub(super) const PATH_SECRET: SecretFormat =
    SecretFormat { min: 16, max: 128, syntax: SecretSyntax::UrlSafe };

/// The URL of a webhook, which may contain a secret and the placeholder `{service}`.
pub(super) const WEBHOOK_URL: SecretFormat =
    SecretFormat { min: 1, max: 2048, syntax: SecretSyntax::Url(is_webhook_template) };

/// The URL of a PostgreSQL database, which may contain a password.
pub(super) const POSTGRES_URL: SecretFormat = SecretFormat {
    min: 1,
    max: 2048,
    syntax: SecretSyntax::DatabaseUrl(&["postgresql", "postgres"]),
};

/// True if `value` is a URL for every service name. The sender of a callback chooses the name, so it
/// must not determine the host.
fn is_webhook_template(value: &str) -> bool {
    let expand = |service: &str| Url::parse(&value.replace("{service}", service)).ok();
    let (Some(url), Some(other)) = (expand(ResultService::Carrier.as_str()), expand("x")) else {
        return false;
    };
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.host_str() == other.host_str()
        && url.port() == other.port()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

impl ListItem for CallbackService {
    const ACCEPTS: &'static str = "callback service names such as `CarrierService`";
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl ListItem for AccountName {
    const ACCEPTS: &'static str =
        "account names of 3 to 32 letters, digits and dashes, such as `0000123456-00001`";
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// The origin of a web page, as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The scheme, the host and the port unless it is the default.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl ListItem for Origin {
    const ACCEPTS: &'static str =
        "origins such as `https://console.example.com`: scheme, host and port, without a path";
    fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_origin =
            matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text;
        is_origin.then(|| Self(text.to_owned()))
    }
}

/// Directives of tracing's `EnvFilter`.
pub(super) struct LogFilter;

impl Kind for LogFilter {
    type Value = String;
    fn describe(&self) -> Description {
        let accepts = "directives of tracing's `EnvFilter` without values of fields, such as \
                       `info` or `info,tonic=debug`";
        Description::scalar(accepts, "FILTER")
    }
    fn parse(&self, text: &str) -> Option<String> {
        let is_valid = !text.trim().is_empty() && parse_log_filter(text).is_ok();
        is_valid.then(|| text.to_owned())
    }
    fn toml(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// A log filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// Not directives of tracing's `EnvFilter`.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// A directive such as `[span{field=value}]`.
    #[error("a directive has the value of a field")]
    FieldValue,
}

/// Parses a log filter, whose directives may name fields but not their values.
///
/// `EnvFilter` compiles a value to an automaton: one of 30 characters can need gigabytes. It can also take values as
/// texts, but then two equal directives break an invariant of it, which panics in debug builds.
///
/// # Errors
///
/// Invalid directives, and those with the value of a field.
pub fn parse_log_filter(text: &str) -> Result<EnvFilter, LogFilterError> {
    // Values occur only in braces.
    let has_value = text.split('{').skip(1).any(|rest| {
        let fields = rest.split('}').next().unwrap_or_default();
        fields.contains('=')
    });
    if has_value {
        return Err(LogFilterError::FieldValue);
    }
    Ok(EnvFilter::builder().with_regex(false).parse(text)?)
}

/// The value of a claim of a token.
pub(super) struct ClaimText;

impl Kind for ClaimText {
    type Value = String;
    fn describe(&self) -> Description {
        Description::scalar("a text of 1 to 512 characters without control characters", "TEXT")
    }
    fn parse(&self, text: &str) -> Option<String> {
        let is_valid = (1..=512).contains(&text.chars().count())
            && !text.chars().any(char::is_control)
            && text.trim() == text;
        is_valid.then(|| text.to_owned())
    }
    fn toml(&self, value: &String) -> String {
        toml_string(value)
    }
}
