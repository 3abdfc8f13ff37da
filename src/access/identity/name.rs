//! Names of callers.

use std::{fmt, sync::Arc};

/// Maximum length of a name with its scheme, in bytes.
const MAX_LENGTH: usize = 512;
/// Maximum number of names of one caller.
const MAX_NAMES: usize = 64;

/// A name of a caller, with a scheme. At most 512 bytes, without control characters.
///
/// | scheme | source |
/// | --- | --- |
/// | `spiffe://trust-domain/path` | SPIFFE ID of a client certificate |
/// | `dns:client.example.com` | DNS name of a client certificate, in lower case |
/// | `subject:CN=client,O=Example` | subject of a client certificate, as in RFC 4514 |
/// | `jwt:SUBJECT` | claim `sub` of a bearer token |
/// | `mesh:ID` | Linkerd's client ID |
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityName(Arc<str>);

/// The names of one caller: at least 1 and at most 64. The first is the primary name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityNames(Arc<[IdentityName]>);

/// A text that is not a valid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected `spiffe://trust-domain/path`, `dns:NAME`, `subject:NAME`, `jwt:SUBJECT` or `mesh:ID` of at \
     most 512 bytes without control characters"
)]
pub struct InvalidName;

impl IdentityName {
    /// Parses a name with its scheme.
    ///
    /// # Errors
    ///
    /// A scheme that does not exist, or a name that is not valid for its scheme.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let (scheme, name) = text.split_once(':').ok_or(InvalidName)?;
        match scheme {
            "spiffe" => Self::spiffe(text),
            "dns" => Self::dns(name),
            "subject" => Self::subject(name),
            "jwt" => Self::jwt(name),
            "mesh" => Self::mesh(name),
            _ => Err(InvalidName),
        }
    }

    /// A SPIFFE ID of a workload: `spiffe://trust-domain/path`.
    ///
    /// # Errors
    ///
    /// The text breaks the rules of the SPIFFE ID specification: characters of the trust domain and of the
    /// path, no empty or relative segments, no port, query or fragment. A trust domain without a path names
    /// no workload.
    pub fn spiffe(uri: &str) -> Result<Self, InvalidName> {
        let (trust_domain, path) =
            uri.strip_prefix("spiffe://").and_then(|id| id.split_once('/')).ok_or(InvalidName)?;
        let is_domain_byte =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_segment = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(is_path_byte)
        };
        let is_valid = (1..=255).contains(&trust_domain.len())
            && trust_domain.bytes().all(is_domain_byte)
            && path.split('/').all(is_segment);
        if is_valid { Self::new("", uri) } else { Err(InvalidName) }
    }

    /// A DNS name. Upper-case letters become lower-case.
    ///
    /// # Errors
    ///
    /// A wildcard, or another text that is not a host name.
    pub fn dns(name: &str) -> Result<Self, InvalidName> {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(InvalidName);
        }
        Self::new("dns:", &name.to_ascii_lowercase())
    }

    /// The subject of a certificate, in the form of RFC 4514.
    ///
    /// # Errors
    ///
    /// An empty text, one without `=`, or one that is too long.
    pub fn subject(name: &str) -> Result<Self, InvalidName> {
        if name.contains('=') { Self::new("subject:", name) } else { Err(InvalidName) }
    }

    /// The subject of a token.
    ///
    /// # Errors
    ///
    /// An empty text, one with control characters, or one that is too long.
    pub fn jwt(subject: &str) -> Result<Self, InvalidName> {
        Self::new("jwt:", subject)
    }

    /// Linkerd's client ID.
    ///
    /// # Errors
    ///
    /// An empty text, one with other characters than letters, digits and `-._:/`, or one that is too long.
    pub fn mesh(id: &str) -> Result<Self, InvalidName> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte);
        if id.bytes().all(is_valid) { Self::new("mesh:", id) } else { Err(InvalidName) }
    }

    /// The name with its scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(scheme: &str, name: &str) -> Result<Self, InvalidName> {
        let is_valid = !name.is_empty()
            && scheme.len() + name.len() <= MAX_LENGTH
            && !name.chars().any(char::is_control);
        is_valid.then(|| Self(format!("{scheme}{name}").into())).ok_or(InvalidName)
    }
}

impl fmt::Display for IdentityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl IdentityNames {
    /// Joins names, in this order. Repeated names are dropped. `None` if there is no name, or more than 64.
    pub fn new(names: impl IntoIterator<Item = IdentityName>) -> Option<Self> {
        let mut unique = Vec::new();
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
            if unique.len() > MAX_NAMES {
                return None;
            }
        }
        (!unique.is_empty()).then(|| Self(unique.into()))
    }

    /// The name that logs and the audit log show.
    pub fn primary(&self) -> &str {
        self.0.first().map_or("", IdentityName::as_str)
    }

    /// All names, the primary first.
    pub fn iter(&self) -> impl Iterator<Item = &IdentityName> {
        self.0.iter()
    }
}

impl From<IdentityName> for IdentityNames {
    fn from(name: IdentityName) -> Self {
        Self(Arc::new([name]))
    }
}

#[cfg(test)]
mod tests;
