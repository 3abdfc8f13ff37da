//! Envoy's header `x-forwarded-client-cert`.
//!
//! Each proxy appends an element. An element is a list of pairs about the certificate of the proxy's client:
//!
//! ```text
//! header  = element *( "," element )
//! element = pair *( ";" pair )
//! pair    = key "=" ( value / DQUOTE quoted DQUOTE )
//! ```
//!
//! Keys are not case-sensitive. A quoted value may contain `,`, `;` and `=`, and escapes `"` with a
//! backslash. Envoy writes a subject in the form of RFC 4514, which has the same escapes, so they stay in the
//! value. Only the last element counts: the trusted proxy that called the gateway has written it.

use std::{iter::Peekable, str::Chars};

use crate::{
    access::identity::{
        certificate::spiffe_id,
        name::{IdentityName, IdentityNames},
    },
    telemetry::AuthFailureReason,
};

/// Maximum length of the header, in bytes. It may contain a certificate chain.
const MAX_LENGTH: usize = 16 * 1024;
/// Maximum number of pairs of an element. A certificate may have many DNS names.
const MAX_PAIRS: usize = 256;

/// A key and its value without quotes.
type Pair = (String, String);

/// Returns the names that the nearest proxy reports: the SPIFFE ID in `URI`, the names in `DNS`, and
/// `Subject`. All other keys are ignored.
///
/// # Errors
///
/// A text that does not follow the grammar, a SPIFFE ID that is invalid or not the only URI, or no usable
/// name.
pub fn parse_forwarded_client_cert(header: &str) -> Result<IdentityNames, AuthFailureReason> {
    if header.trim().is_empty() {
        return Err(AuthFailureReason::NoName);
    }
    let pairs = last_element(header).ok_or(AuthFailureReason::MalformedHeader)?;
    let values = |key: &str| {
        let matching = pairs.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(key));
        matching.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    let spiffe = spiffe_id(&values("uri")).map_err(|_| AuthFailureReason::MalformedHeader)?;
    let dns_names = values("dns").into_iter().flat_map(IdentityName::dns);
    let subjects = values("subject");
    if subjects.len() > 1 {
        return Err(AuthFailureReason::MalformedHeader);
    }
    let subject = subjects.into_iter().flat_map(IdentityName::subject);
    let names: Vec<_> = spiffe.into_iter().chain(dns_names).chain(subject).collect();
    if names.is_empty() {
        return Err(AuthFailureReason::NoName);
    }
    IdentityNames::new(names).ok_or(AuthFailureReason::MalformedHeader)
}

/// Parses all elements and returns the pairs of the last. `None` if any of them is malformed.
fn last_element(header: &str) -> Option<Vec<Pair>> {
    if header.len() > MAX_LENGTH {
        return None;
    }
    let mut rest = header.chars().peekable();
    let mut pairs = Vec::new();
    loop {
        pairs.push(pair(&mut rest)?);
        match rest.next() {
            None => return Some(pairs),
            Some(';') if pairs.len() < MAX_PAIRS => {}
            Some(',') => pairs.clear(),
            Some(_) => return None,
        }
    }
}

/// Parses a pair up to the next separator, which it does not consume.
fn pair(rest: &mut Peekable<Chars<'_>>) -> Option<Pair> {
    while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    let mut key = String::new();
    while let Some(character) = rest.next_if(char::is_ascii_alphanumeric) {
        key.push(character);
    }
    if key.is_empty() || rest.next() != Some('=') {
        return None;
    }
    let value = if rest.next_if_eq(&'"').is_some() { quoted(rest)? } else { plain(rest)? };
    Some((key, value))
}

/// Parses a value after its opening quote, and the white space after the closing one.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => value.extend(['\\', rest.next()?]),
            character => value.push(character),
        }
    }
    while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
    Some(value)
}

/// Parses a value without quotes.
fn plain(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    while let Some(character) = rest.next_if(|c| !matches!(c, ',' | ';')) {
        // `=` occurs in base64.
        if character == '"' {
            return None;
        }
        value.push(character);
    }
    Some(value.trim_end_matches([' ', '\t']).to_owned())
}

#[cfg(test)]
mod tests;
