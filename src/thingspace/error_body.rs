//! The formats in which ThingSpace and the API gateway in front of it report errors (see
//! thingspace-facts, section 6).

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::thingspace::json::{member, member_text};

/// The API gateway's codes for authentication.
const AUTHENTICATION: RangeInclusive<u32> = 900_900..=900_999;
/// The API gateway's code for an unknown path or method.
pub(super) const NO_SUCH_RESOURCE: u32 = 900_906;

/// The classes of ThingSpace's codes for synchronous errors.
const CODE_CLASSES: [&str; 2] = ["INPUT_INVALID", "REQUEST_FAILED"];
/// The only code without a class.
const DESERIALIZATION_FAILED: &str = "DeserializationFailed";

/// An error in a known format. Code and text are unredacted and of any length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) format: ErrorFormat,
    /// Never empty.
    pub(super) code: String,
    /// May be empty.
    pub(super) text: String,
}

/// The format of an error, which shows its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// `{"errorCode", "errorMessage"}` of ThingSpace. The code is dotted, such as
    /// `UnifiedWebService.REQUEST_FAILED.DeviceNotFound`; the eSIM API sends an HTTP status instead.
    Service,
    /// `{"fault": {"code", "message", "description"}}` of the API gateway (WSO2).
    Fault,
    /// The XML form of `Fault`: `<am:fault>`.
    XmlFault,
    /// `{"error", "error_description"}` of OAuth.
    OAuth,
}

impl ErrorBody {
    /// Parses a response body. Returns `None` if it is empty, HTML or in another unknown format.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        match serde_json::from_slice(body) {
            Ok(body) => Self::parse_json(&body),
            Err(_) => Self::parse_xml(&String::from_utf8_lossy(body)),
        }
    }

    fn parse_json(body: &Value) -> Option<Self> {
        let text = |object, name| member_text(object, name).unwrap_or_default();
        let (format, code, text) = if member(body, "errorCode").is_some() {
            let code = member_text(body, "errorCode");
            (ErrorFormat::Service, code, text(body, "errorMessage"))
        } else if let Some(fault) = member(body, "fault").filter(|fault| fault.is_object()) {
            let text = join(text(fault, "message"), &text(fault, "description"));
            (ErrorFormat::Fault, member_text(fault, "code"), text)
        } else {
            let text = join(text(body, "error_description"), &text(body, "cause"));
            (ErrorFormat::OAuth, member_text(body, "error"), text)
        };
        let code = code.filter(|code| !code.is_empty())?;
        Some(Self { format, code, text })
    }

    fn parse_xml(body: &str) -> Option<Self> {
        body.contains("<am:fault").then_some(())?;
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<am:{name}>"))?;
            let (inner, _) = rest.split_once(&format!("</am:{name}>"))?;
            Some(unescape(inner.trim()))
        };
        Some(Self {
            format: ErrorFormat::XmlFault,
            code: element("code").filter(|code| !code.is_empty())?,
            text: join(
                element("message").unwrap_or_default(),
                &element("description").unwrap_or_default(),
            ),
        })
    }

    /// Returns the API gateway's numeric code, such as 900901.
    pub(super) fn gateway_code(&self) -> Option<u32> {
        matches!(self.format, ErrorFormat::Fault | ErrorFormat::XmlFault)
            .then(|| self.code.parse().ok())
            .flatten()
    }

    /// Returns the HTTP status that the eSIM API sends as the code, such as 404.
    pub(super) fn status_code(&self) -> Option<u16> {
        (self.format == ErrorFormat::Service && self.code.len() == 3)
            .then(|| self.code.parse().ok())
            .flatten()
    }

    /// True if the API gateway refused the token or found none.
    pub(super) fn is_authentication_fault(&self) -> bool {
        self.gateway_code()
            .is_some_and(|code| AUTHENTICATION.contains(&code) && code != NO_SUCH_RESOURCE)
    }

    /// Returns ThingSpace's code for the cause. If the code is an HTTP status, the cause is in the text.
    pub(super) fn cause_code(&self) -> Option<&str> {
        if self.format != ErrorFormat::Service {
            None
        } else if self.status_code().is_some() {
            code_in(&self.text)
        } else {
            Some(&self.code)
        }
    }

    /// Returns the code to report: the code for the cause, if there is one.
    pub(super) fn reported_code(&self) -> &str {
        self.cause_code().unwrap_or(&self.code)
    }
}

/// Returns the code in a text such as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound: no such device`.
pub(super) fn code_in(text: &str) -> Option<&str> {
    const NOT_FOUND: &str = ".NotFound";
    if text.contains(DESERIALIZATION_FAILED) {
        return Some(DESERIALIZATION_FAILED);
    }
    CODE_CLASSES.iter().find_map(|class| {
        let class_at = text.find(&format!("{class}."))?;
        let (before, after) = text.split_at_checked(class_at)?;
        let service_len = before.chars().rev().take_while(is_code_character).count();
        let mut len = after.chars().take_while(is_code_character).count();
        // The name of a plan inside a code may contain spaces.
        let sentence = after.split(':').next().unwrap_or(after);
        if let Some(at) = sentence.find(NOT_FOUND) {
            len = len.max(at + NOT_FOUND.len());
        }
        let code = text.get(class_at - service_len..class_at + len)?;
        let code = code.trim_end_matches('.');
        let has_cause = code.len() > service_len + class.len();
        has_cause.then_some(code)
    })
}

/// Code characters are ASCII, so their number is their length in bytes.
fn is_code_character(c: &char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn join(first: String, second: &str) -> String {
    if first.is_empty() || second.is_empty() {
        first + second
    } else {
        format!("{first}: {second}")
    }
}

/// Replaces XML entities, so that the redactor recognises an address with `&`.
fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests;
