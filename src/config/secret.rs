//! A setting that is never shown: kept inline, or in a file that is read again whenever it is needed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::kind::Describe;

/// No secret file is read further than this, in bytes.
const LONGEST_FILE: u64 = 64 * 1024;

/// A secret: its value, or the file that holds it. `Debug` shows neither value nor length.
#[derive(Clone)]
pub struct Secret {
    place: Place,
    rule: Rule,
}

#[derive(Clone)]
enum Place {
    Inline(SecretString),
    File(PathBuf),
}

/// Why a secret cannot be read (again). The text of it is one line without the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing, not permitted, not text, or beyond 64 KiB.
    #[error("cannot read the secret in {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file's content is not what the setting accepts.
    #[error("the secret in {path} is not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the setting accepts.
        expected: String,
    },
}

impl Secret {
    /// A secret made by the program itself, such as the generated path secret of `serve --sandbox`.
    pub fn new(value: impl Into<SecretString>) -> Self {
        Self {
            place: Place::Inline(value.into()),
            rule: Rule::CREDENTIAL,
        }
    }

    /// Keeps a value that `rule` accepts, otherwise gives nothing back.
    pub(super) fn inline(value: &str, rule: Rule) -> Option<Self> {
        rule.admits(value).then(|| Self {
            place: Place::Inline(value.into()),
            rule,
        })
    }

    /// A secret that lives in a file.
    pub(super) fn in_file(path: PathBuf, rule: Rule) -> Self {
        Self {
            place: Place::File(path),
            rule,
        }
    }

    /// The secret as it is now: a file is read anew at each call, so that a rotated one is seen.
    /// One newline at the end of the file is not part of the secret.
    ///
    /// # Errors
    ///
    /// [`SecretError`] when the file cannot be read or does not hold what the setting accepts.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let path = match &self.place {
            Place::Inline(value) => return Ok(value.clone()),
            Place::File(path) => path,
        };
        let value = read_file(path).map_err(|source| SecretError::Unreadable {
            path: path.clone(),
            source,
        })?;
        if self.rule.admits(value.expose_secret()) {
            Ok(value)
        } else {
            Err(SecretError::Malformed {
                path: path.clone(),
                expected: self.rule.accepts(),
            })
        }
    }

    /// The file that holds the secret, when it is not inline.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Inline(_) => None,
            Place::File(path) => Some(path),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Inline(_) => f.write_str("Secret(<hidden>)"),
            Place::File(path) => write!(f, "Secret(<hidden>, in {})", path.display()),
        }
    }
}

/// Reads a file whole, without the one newline that editors and `echo` leave at its end.
fn read_file(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LONGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if read as u64 > LONGEST_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 64 KiB",
        ));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text.into())
}

/// What a secret's value must look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    shortest: usize,
    longest: usize,
    sort: Sort,
}

/// What a secret is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Text,
    UrlSafe,
    /// An address with `{service}` in it, or without.
    Url,
}

impl Rule {
    /// A name or password towards ThingSpace.
    pub(super) const CREDENTIAL: Self = Self {
        shortest: 1,
        longest: 1024,
        sort: Sort::Text,
    };

    /// What ThingSpace lets a callback registration carry: 40 characters at most.
    pub(super) const CALLBACK_CREDENTIAL: Self = Self {
        longest: 40,
        ..Self::CREDENTIAL
    };

    /// A segment of a URL's path, long enough not to be guessed.
    pub(super) const PATH: Self = Self {
        shortest: 16,
        longest: 128,
        sort: Sort::UrlSafe,
    };

    /// An address that may have a secret in its path or its query.
    pub(super) const URL: Self = Self {
        shortest: 1,
        longest: 2048,
        sort: Sort::Url,
    };

    fn admits(&self, value: &str) -> bool {
        let fits = (self.shortest..=self.longest).contains(&value.chars().count());
        // A control character is a second line or a stray byte: a mistake in making the file.
        let clean = |c: char| match self.sort {
            Sort::UrlSafe => c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'),
            Sort::Text | Sort::Url => !c.is_control(),
        };
        let reads = self.sort != Sort::Url || is_template(value);
        fits && value.chars().all(clean) && reads
    }
}

/// Whether this is an address, whatever service's name is put into it. The sender of a callback picks
/// the name: it may not pick the host.
fn is_template(value: &str) -> bool {
    let at = |service: &str| Url::parse(&value.replace("{service}", service)).ok();
    let (Some(url), Some(other)) = (at("CarrierService"), at("x")) else {
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

impl Describe for Rule {
    fn accepts(&self) -> String {
        let of = match self.sort {
            Sort::UrlSafe => "URL-safe characters (letters, digits, `-`, `_`, `.`, `~`)",
            Sort::Text => "characters, none of them a control character",
            Sort::Url => {
                return "an `http` or `https` URL without credentials or fragment".to_owned();
            }
        };
        format!("{} to {} {of}", self.shortest, self.longest)
    }

    fn placeholder(&self) -> &'static str {
        match self.sort {
            Sort::Url => "URL",
            Sort::Text | Sort::UrlSafe => "SECRET",
        }
    }

    fn has_flag(&self) -> bool {
        // Most addresses have no secret in them.
        self.sort == Sort::Url
    }
}
