//! The shapes in which ThingSpace and the gateway in front of it report errors
//! ("Synchronous Error Messages").

use serde_json::{Map, Value};

use super::error_codes;

/// The API gateway's codes for authentication.
const AUTHENTICATION: std::ops::RangeInclusive<u32> = 900_900..=900_999;
/// The API gateway's code for a path or verb that it does not know.
pub(super) const NO_SUCH_RESOURCE: u32 = 900_906;

/// An error in a shape that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) shape: ErrorShape,
    /// Never empty. As it came: of any length, and from outside.
    pub(super) code: String,
    /// As it came: of any length, and from outside. May be empty.
    pub(super) text: String,
}

/// Which shape it had, and so who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorShape {
    /// `{"errorCode", "errorMessage"}`: ThingSpace. The code is dotted, such
    /// as `UnifiedWebService.REQUEST_FAILED.DeviceNotFound`, or in the eSIM
    /// family three digits of an HTTP status.
    Service,
    /// `{"fault": {"code", "message", "description"}}`: the WSO2 gateway.
    Fault,
    /// The same in XML: `<am:fault>`.
    XmlFault,
    /// `{"error", "error_description"}`: OAuth.
    OAuth,
}

// === impl ErrorBody ===

impl ErrorBody {
    /// Reads a body; `None` when it is empty, HTML or anything else.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Self::parse_json(&members),
            Ok(_) => None,
            Err(_) => Self::parse_xml(&String::from_utf8_lossy(body)),
        }
    }

    fn parse_json(members: &Map<String, Value>) -> Option<Self> {
        let of = |shape, code: Option<&Value>, text: String| {
            let code = code.and_then(plain).filter(|code| !code.is_empty())?;
            Some(Self { shape, code, text })
        };
        if let Some(code) = get(members, "errorCode") {
            return of(
                ErrorShape::Service,
                Some(code),
                text(members, "errorMessage"),
            );
        }
        if let Some(Value::Object(fault)) = get(members, "fault") {
            let texts = [text(fault, "message"), text(fault, "description")];
            return of(ErrorShape::Fault, get(fault, "code"), join(texts));
        }
        let texts = [text(members, "error_description"), text(members, "cause")];
        of(ErrorShape::OAuth, get(members, "error"), join(texts))
    }

    fn parse_xml(body: &str) -> Option<Self> {
        body.contains("<am:fault").then_some(())?;
        let element = |name: &str| {
            let (_, rest) = body.split_once(&format!("<am:{name}>"))?;
            let (inner, _) = rest.split_once(&format!("</am:{name}>"))?;
            Some(unescape(inner.trim()))
        };
        Some(Self {
            shape: ErrorShape::XmlFault,
            code: element("code").filter(|code| !code.is_empty())?,
            text: join([
                element("message").unwrap_or_default(),
                element("description").unwrap_or_default(),
            ]),
        })
    }

    /// The number in a code of the gateway, such as 900901.
    pub(super) fn gateway_code(&self) -> Option<u32> {
        matches!(self.shape, ErrorShape::Fault | ErrorShape::XmlFault)
            .then(|| self.code.parse().ok())
            .flatten()
    }

    /// The HTTP status in a code of the eSIM family, such as 404.
    pub(super) fn status_code(&self) -> Option<u16> {
        (self.shape == ErrorShape::Service && self.code.len() == 3)
            .then(|| self.code.parse().ok())
            .flatten()
    }

    /// True for the API gateway's error for a missing or wrong token or key.
    pub(super) fn is_authentication_fault(&self) -> bool {
        self.gateway_code()
            .is_some_and(|code| AUTHENTICATION.contains(&code) && code != NO_SUCH_RESOURCE)
    }

    /// The code that names the cause: of ThingSpace's own errors, the code itself, or the code in the
    /// text where the code is a status, as the eSIM API sends it.
    pub(super) fn cause_code(&self) -> Option<&str> {
        if self.shape != ErrorShape::Service {
            None
        } else if self.status_code().is_some() {
            error_codes::code_in(&self.text)
        } else {
            Some(&self.code)
        }
    }
}

/// A member by its name in any case.
pub(super) fn get<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).or_else(|| {
        members
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    })
}

/// A text or a number, as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn text(members: &Map<String, Value>, name: &str) -> String {
    get(members, name).and_then(plain).unwrap_or_default()
}

fn join(texts: [String; 2]) -> String {
    let [first, second] = texts;
    match (first.is_empty(), second.is_empty()) {
        (false, false) => format!("{first}: {second}"),
        _ => first + &second,
    }
}

/// So that an address with `&` in it is recognised, and blanked.
fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}
