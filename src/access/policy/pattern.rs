//! Patterns of identity names and of accounts.
//!
//! Matching takes time in proportion to the length of the name: no pattern causes backtracking.

use std::{fmt, sync::Arc};

/// A pattern of identity names: a scheme, and a text in which `*` stands for one or more characters
/// except `/`, and in `dns:` also except `.`. At the end of a `spiffe://` pattern, `/**` stands for one or
/// more path segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentityPattern {
    text: Box<str>,
    scheme: Scheme,
    /// `None` if the pattern has no wildcard.
    wildcards: Option<Wildcards>,
}

/// A pattern of account names, in which `*` stands for any number of characters. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountPattern(Arc<AccountGlob>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct AccountGlob {
    text: Box<str>,
    glob: Glob,
}

/// The scheme of an identity name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Spiffe,
    Dns,
    Subject,
    Jwt,
    Mesh,
}

/// The wildcards of an identity pattern, by segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wildcards {
    segments: Vec<Glob>,
    /// True if one or more segments may follow.
    has_subtree: bool,
}

/// The literal pieces around the `*` of a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Glob {
    first: Box<str>,
    /// One piece after each `*`.
    rest: Vec<Box<str>>,
    /// Minimum number of bytes of a `*`.
    min_gap: usize,
}

/// Maximum length of an identity pattern in bytes.
pub(super) const MAX_IDENTITY_BYTES: usize = 512;
/// Maximum length of an account pattern in bytes.
pub(super) const MAX_ACCOUNT_BYTES: usize = 64;
/// The valid identity patterns, as a phrase that can follow the word "expected".
pub(super) const IDENTITY_SCHEMES: &str =
    "a pattern that begins with spiffe://, dns:, subject:, jwt: or mesh:";

// === impl IdentityPattern ===

impl IdentityPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// The valid patterns, as a phrase that can follow the word "expected".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !(1..=MAX_IDENTITY_BYTES).contains(&text.len()) {
            return Err("1 to 512 bytes");
        }
        let (scheme, rest) = Scheme::split(text).ok_or(IDENTITY_SCHEMES)?;
        let (body, has_subtree) = match rest.strip_suffix("/**") {
            Some(body) if scheme == Scheme::Spiffe => (body, true),
            _ => (rest, false),
        };
        if body.contains("**") {
            return Err("`**` only as the last segment of a spiffe:// pattern");
        }
        scheme.check(body)?;
        let has_wildcards = has_subtree || body.contains('*');
        let wildcards = has_wildcards.then(|| Wildcards {
            segments: body.split(scheme.separators()).map(|part| Glob::new(part, 1)).collect(),
            has_subtree,
        });
        let text = match scheme {
            Scheme::Dns => text.to_ascii_lowercase().into(),
            _ => text.into(),
        };
        let wildcards = wildcards.map(|wildcards| match scheme {
            Scheme::Dns => wildcards.to_lowercase(),
            _ => wildcards,
        });
        Ok(Self { text, scheme, wildcards })
    }

    /// Returns true if the pattern matches an identity name.
    pub fn matches(&self, name: &str) -> bool {
        match &self.wildcards {
            None => *self.text == *name,
            Some(wildcards) => Scheme::split(name).is_some_and(|(scheme, rest)| {
                scheme == self.scheme && wildcards.matches(rest, scheme.separators())
            }),
        }
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns true if the pattern has no wildcard, so that it matches one name.
    pub fn is_exact(&self) -> bool {
        self.wildcards.is_none()
    }

    /// Returns true if the pattern matches every name that `other` matches. False if it only matches some
    /// of them.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let has_subtree =
            |it: &Self| it.wildcards.as_ref().is_some_and(|wildcards| wildcards.has_subtree);
        // A `*` in the other's text can only be matched by a `*` of this pattern.
        self.matches(&other.text) && (has_subtree(self) || !has_subtree(other))
    }

    /// Returns true if nothing but the scheme restricts the names.
    pub(super) fn matches_whole_scheme(&self) -> bool {
        self.wildcards
            .as_ref()
            .is_some_and(|wildcards| wildcards.segments.iter().all(|glob| glob.is_only_wildcards()))
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Scheme ===

impl Scheme {
    const PREFIXES: [(&'static str, Self); 5] = [
        ("spiffe://", Self::Spiffe),
        ("dns:", Self::Dns),
        ("subject:", Self::Subject),
        ("jwt:", Self::Jwt),
        ("mesh:", Self::Mesh),
    ];

    /// Splits a name or a pattern.
    fn split(text: &str) -> Option<(Self, &str)> {
        let mut prefixes = Self::PREFIXES.into_iter();
        prefixes.find_map(|(prefix, scheme)| Some((scheme, text.strip_prefix(prefix)?)))
    }

    /// Returns the characters that `*` does not match.
    fn separators(self) -> &'static [char] {
        match self {
            Self::Dns => &['/', '.'],
            _ => &['/'],
        }
    }

    /// Checks the text after the scheme, which may contain `*`.
    fn check(self, body: &str) -> Result<(), &'static str> {
        let is_alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
        match self {
            Self::Spiffe => {
                let (trust_domain, path) = match body.split_once('/') {
                    Some((trust_domain, path)) => (trust_domain, Some(path)),
                    None => (body, None),
                };
                let is_domain = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_*".contains(&byte)
                };
                if trust_domain.is_empty() || !trust_domain.bytes().all(is_domain) {
                    return Err(
                        "a trust domain of lower-case letters, digits, dots, dashes and underscores \
                         after spiffe://",
                    );
                }
                let is_segment = |segment: &str| {
                    let is_valid = |byte: u8| is_alphanumeric(byte) || b".-_*".contains(&byte);
                    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_valid)
                };
                if !path.is_none_or(|path| path.split('/').all(is_segment)) {
                    return Err(
                        "path segments of letters, digits, dots, dashes and underscores, none of \
                         them empty, `.` or `..`",
                    );
                }
            }
            Self::Dns => {
                let is_label = |label: &str| {
                    let is_valid = |byte: u8| is_alphanumeric(byte) || b"-_*".contains(&byte);
                    !label.is_empty() && label.bytes().all(is_valid)
                };
                if !body.split('.').all(is_label) {
                    return Err("a DNS name after dns:, such as dns:client.example.com");
                }
            }
            Self::Subject | Self::Jwt | Self::Mesh => {
                if body.is_empty() || body.chars().any(char::is_control) {
                    return Err("a text without control characters after the scheme");
                }
            }
        }
        Ok(())
    }
}

// === impl Wildcards ===

impl Wildcards {
    fn matches(&self, text: &str, separators: &[char]) -> bool {
        let mut parts = text.split(separators);
        let has_prefix =
            self.segments.iter().all(|glob| parts.next().is_some_and(|part| glob.matches(part)));
        // A path never has an empty segment.
        let mut rest = parts.peekable();
        has_prefix
            && match self.has_subtree {
                true => rest.peek().is_some() && rest.all(|part| !part.is_empty()),
                false => rest.peek().is_none(),
            }
    }

    fn to_lowercase(&self) -> Self {
        let lower = |piece: &str| piece.to_ascii_lowercase().into();
        let segments = self.segments.iter().map(|glob| Glob {
            first: lower(&glob.first),
            rest: glob.rest.iter().map(|piece| lower(piece)).collect(),
            min_gap: glob.min_gap,
        });
        Self { segments: segments.collect(), has_subtree: self.has_subtree }
    }
}

// === impl Glob ===

impl Glob {
    fn new(text: &str, min_gap: usize) -> Self {
        let mut pieces = text.split('*').map(Box::from);
        Self { first: pieces.next().unwrap_or_default(), rest: pieces.collect(), min_gap }
    }

    /// Finds each piece as far left as possible, which leaves the most for the others.
    fn matches(&self, text: &str) -> bool {
        let Some(mut remaining) = text.strip_prefix(&*self.first) else {
            return false;
        };
        let Some((last, middle)) = self.rest.split_last() else {
            return remaining.is_empty();
        };
        for piece in middle {
            let after_gap = remaining.get(remaining.ceil_char_boundary(self.min_gap)..);
            let Some(found) = after_gap
                .filter(|_| remaining.len() >= self.min_gap)
                .and_then(|text| text.split_once(&**piece))
            else {
                return false;
            };
            remaining = found.1;
        }
        let gap = remaining.strip_suffix(&**last);
        gap.is_some_and(|gap| gap.len() >= self.min_gap)
    }

    fn is_only_wildcards(&self) -> bool {
        self.first.is_empty() && !self.rest.is_empty() && self.rest.iter().all(|it| it.is_empty())
    }
}

// === impl AccountPattern ===

impl AccountPattern {
    /// The valid patterns, as a phrase that can follow the word "expected".
    pub const ACCEPTS: &'static str =
        "1 to 64 letters, digits, dashes and `*`, such as 0000123456-00001 or 0000123456-*";

    /// Parses a pattern. `None` if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-*".contains(&byte);
        let is_pattern =
            (1..=MAX_ACCOUNT_BYTES).contains(&text.len()) && text.bytes().all(is_valid);
        is_pattern
            .then(|| Self(Arc::new(AccountGlob { text: text.into(), glob: Glob::new(text, 0) })))
    }

    /// Returns true if the pattern matches an account.
    pub fn matches(&self, account: &str) -> bool {
        self.0.glob.matches(account)
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns true if the pattern has no `*`, so that it matches one account.
    pub fn is_exact(&self) -> bool {
        self.0.glob.rest.is_empty()
    }

    /// Returns true if the pattern matches every account.
    pub fn matches_all(&self) -> bool {
        self.0.glob.is_only_wildcards()
    }
}

impl fmt::Display for AccountPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

#[cfg(test)]
mod tests;
