//! Errors in responses of ThingSpace and of the API gateway in front of it: their formats, and the
//! meaning of their codes (see docs/thingspace-facts.md, section 6). docs/thingspace-refusals.md
//! lists the codes for users.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::{
    domain::refusal::RefusalKind::{
        self, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied,
    },
    thingspace::json::{member, member_text},
};

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

/// The meaning of an error code for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorMeaning {
    /// ThingSpace refused the change and executed nothing.
    Refused(RefusalKind),
    /// ThingSpace refused the session and executed nothing.
    SessionRefused,
    /// The change may have been executed.
    Uncertain,
}

impl ErrorBody {
    /// Parses a response body. Returns `None` if it is empty, HTML or in another unknown format.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        let error = match serde_json::from_slice(body) {
            Ok(body) => Self::parse_json(&body),
            Err(_) => Self::parse_xml(&String::from_utf8_lossy(body))?,
        };
        (!error.code.is_empty()).then_some(error)
    }

    fn parse_json(body: &Value) -> Self {
        let text = |object, name| member_text(object, name).unwrap_or_default();
        if member(body, "errorCode").is_some() {
            let (code, text) = (text(body, "errorCode"), text(body, "errorMessage"));
            Self { format: ErrorFormat::Service, code, text }
        } else if let Some(fault) = member(body, "fault").filter(|fault| fault.is_object()) {
            let description = join([text(fault, "message"), text(fault, "description")]);
            Self { format: ErrorFormat::Fault, code: text(fault, "code"), text: description }
        } else {
            let description = join([text(body, "error_description"), text(body, "cause")]);
            Self { format: ErrorFormat::OAuth, code: text(body, "error"), text: description }
        }
    }

    fn parse_xml(body: &str) -> Option<Self> {
        body.contains("<am:fault").then_some(())?;
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<am:{name}>"))?;
            let (inner, _) = rest.split_once(&format!("</am:{name}>"))?;
            Some(unescape(inner.trim()))
        };
        let text = |name| element(name).unwrap_or_default();
        let description = join([text("message"), text("description")]);
        Some(Self { format: ErrorFormat::XmlFault, code: element("code")?, text: description })
    }

    /// Returns the API gateway's numeric code, such as 900901.
    pub(super) fn gateway_code(&self) -> Option<u32> {
        let is_fault = matches!(self.format, ErrorFormat::Fault | ErrorFormat::XmlFault);
        self.code.parse().ok().filter(|_| is_fault)
    }

    /// Returns the HTTP status that the eSIM API sends as the code, such as 404.
    pub(super) fn status_code(&self) -> Option<u16> {
        let is_status = self.format == ErrorFormat::Service && self.code.len() == 3;
        self.code.parse().ok().filter(|_| is_status)
    }

    /// True if the API gateway refused the token or found none.
    pub(super) fn is_authentication_fault(&self) -> bool {
        self.gateway_code()
            .is_some_and(|code| AUTHENTICATION.contains(&code) && code != NO_SUCH_RESOURCE)
    }

    /// Returns ThingSpace's code for the cause. If the code is an HTTP status, the cause is in the text.
    fn cause_code(&self) -> Option<&str> {
        if self.format != ErrorFormat::Service {
            None
        } else if self.status_code().is_some() {
            code_in(&self.text)
        } else {
            Some(&self.code)
        }
    }

    /// Returns the meaning of the error; `None` if neither its code nor a code in its text is known.
    pub(super) fn meaning(&self) -> Option<ErrorMeaning> {
        classify_code(self.cause_code()?)
    }

    /// Returns the code to report: the code for the cause, if there is one.
    pub(super) fn reported_code(&self) -> &str {
        self.cause_code().unwrap_or(&self.code)
    }
}

/// Returns the code in a text such as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound: no such device`.
fn code_in(text: &str) -> Option<&str> {
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

/// Classifies a code with or without the name of a service, in any letter case.
fn classify_code(code: &str) -> Option<ErrorMeaning> {
    use ErrorMeaning::{Refused, SessionRefused, Uncertain};

    let code = code.to_ascii_lowercase();
    let without_service = code.split_once('.').map_or("", |(_service, rest)| rest);
    let has_class = ["input_invalid.", "request_failed."]
        .iter()
        .any(|class| without_service.starts_with(class));
    let cause = if has_class { without_service } else { &code };
    let is = |known: &str| code == known || without_service == known;
    let contains = |text: &str| cause.contains(text);
    let has_part = |name: &str| cause.split('.').any(|part| part == name);
    Some(if is("deserializationfailed") || is("request_failed.multipleaccounts") {
        Refused(InvalidArgument)
    } else if is("request_failed.accountname") {
        Refused(PermissionDenied)
    } else if is("request_failed.noaccounts") {
        Refused(NotFound)
    } else if has_part("sessiontoken") {
        SessionRefused
    } else if cause.ends_with("unexpectederror") {
        Uncertain
    } else if contains("devicestate") || contains("limit") || contains("suspend") {
        Refused(FailedPrecondition)
    } else if cause.ends_with("notfound") {
        Refused(NotFound)
    } else if has_part("input_invalid") {
        Refused(InvalidArgument)
    } else if has_part("request_failed") {
        Refused(FailedPrecondition)
    } else {
        return None;
    })
}

fn join(texts: [String; 2]) -> String {
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
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
