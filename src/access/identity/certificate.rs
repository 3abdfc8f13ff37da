//! Names of a verified client certificate.

use std::{fmt::Write as _, time::Duration};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    asn1_rs::ToDer as _,
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::FromDer as _,
    time::ASN1Time,
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::{
    access::identity::{
        Checked, Credential, Identity,
        name::{IdentityName, IdentityNames},
    },
    domain::clock::Timestamp,
    telemetry::AuthFailureReason,
};

/// Short names of attribute types, as OpenSSL and Envoy write them. RFC 4514 requires the first nine.
const ATTRIBUTES: [(&str, &str); 14] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "street"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
];

/// Returns the identity of a certificate that the TLS handshake has verified: its SPIFFE ID, its DNS names
/// and its subject, in this order. Names that cannot be used, such as wildcards, are left out.
pub(super) fn identify(certificate: &CertificateDer<'_>, now: Timestamp) -> Checked<Identity> {
    let (rest, certificate) = X509Certificate::from_der(certificate)
        .map_err(|_| AuthFailureReason::MalformedCertificate)?;
    if !rest.is_empty() {
        return Err(AuthFailureReason::MalformedCertificate);
    }
    let validity = certificate.validity();
    let expires_at = timestamp(validity.not_after);
    if now < timestamp(validity.not_before) {
        return Err(AuthFailureReason::NotYetValid);
    }
    if expires_at <= now {
        return Err(AuthFailureReason::Expired);
    }
    let names = names(&certificate)?;
    Ok(Identity { names, expires_at: Some(expires_at), credential: Credential::Certificate })
}

fn names(certificate: &X509Certificate<'_>) -> Checked<IdentityNames> {
    let mut uris = Vec::new();
    let mut dns_names = Vec::new();
    let alternative_names = certificate
        .subject_alternative_name()
        .map_err(|_| AuthFailureReason::MalformedCertificate)?;
    for name in alternative_names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns_names.extend(IdentityName::dns(name)),
            GeneralName::Invalid(..) => return Err(AuthFailureReason::MalformedCertificate),
            _ => {}
        }
    }
    let subject = format_subject(certificate.subject());
    let subject = subject.and_then(|subject| IdentityName::subject(&subject).ok());
    let names: Vec<_> = spiffe_id(&uris)?.into_iter().chain(dns_names).chain(subject).collect();
    if names.is_empty() {
        return Err(AuthFailureReason::NoName);
    }
    // Too many names. To drop some of them could make the certificate another caller's.
    IdentityNames::new(names).ok_or(AuthFailureReason::MalformedCertificate)
}

/// Returns the SPIFFE ID among the URIs. A certificate with a SPIFFE ID has exactly one URI (X.509-SVID
/// specification, section 2). URIs of other schemes name no caller.
pub(super) fn spiffe_id(uris: &[&str]) -> Checked<Option<IdentityName>> {
    let is_spiffe =
        |uri: &str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    if !uris.iter().any(|uri| is_spiffe(uri)) {
        return Ok(None);
    }
    match uris {
        [uri] => match IdentityName::spiffe(uri) {
            Ok(name) => Ok(Some(name)),
            Err(_) => Err(AuthFailureReason::MalformedCertificate),
        },
        _ => Err(AuthFailureReason::MalformedCertificate),
    }
}

fn timestamp(time: ASN1Time) -> Timestamp {
    // Times before 1970 are as good as 1970.
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Timestamp::from_micros(0).plus(Duration::from_secs(seconds))
}

/// Formats a subject as in RFC 4514: the last component first. `None` for an empty subject.
fn format_subject(name: &X509Name<'_>) -> Option<String> {
    let mut components: Vec<_> = name
        .iter()
        .map(|component| component.iter().map(format_attribute).collect::<Option<Vec<_>>>())
        .collect::<Option<_>>()?;
    components.reverse();
    let components = components.into_iter().map(|attributes| attributes.join("+"));
    Some(components.collect::<Vec<_>>().join(",")).filter(|subject| !subject.is_empty())
}

/// Formats an attribute. Values of unknown types, and values that are not UTF-8, are hexadecimal.
fn format_attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid);
    if let (Some((_, name)), Ok(value)) = (known, attribute.as_str()) {
        return Some(format!("{name}={}", escape(value)));
    }
    let der = attribute.attr_value().to_der_vec().ok()?;
    let name = known.map_or(oid.as_str(), |(_, name)| name);
    let hex = der.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    Some(format!("{name}=#{hex}"))
}

/// Escapes a value as in section 2.4 of RFC 4514, and control characters as hexadecimal bytes.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        let is_at_edge =
            (index == 0 && matches!(character, ' ' | '#')) || (index == last && character == ' ');
        if is_at_edge || "\"+,;<>\\".contains(character) {
            escaped.push('\\');
            escaped.push(character);
        } else if character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(escaped, "\\{byte:02x}");
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
