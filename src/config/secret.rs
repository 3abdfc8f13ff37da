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
    location: SecretLocation,
    format: SecretFormat,
}

#[derive(Clone)]
enum SecretLocation {
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
            location: SecretLocation::Inline(value.into()),
            format: SecretFormat::CREDENTIAL,
        }
    }

    /// Keeps a value that `rule` accepts, otherwise gives nothing back.
    pub(super) fn inline(value: &str, rule: SecretFormat) -> Option<Self> {
        rule.admits(value).then(|| Self {
            location: SecretLocation::Inline(value.into()),
            format: rule,
        })
    }

    /// A secret that lives in a file.
    pub(super) fn in_file(path: PathBuf, rule: SecretFormat) -> Self {
        Self {
            location: SecretLocation::File(path),
            format: rule,
        }
    }

    /// The secret as it is now: a file is read anew at each call, so that a rotated one is seen.
    /// One newline at the end of the file is not part of the secret.
    ///
    /// # Errors
    ///
    /// [`SecretError`] when the file cannot be read or does not hold what the setting accepts.
    pub fn load(&self) -> Result<SecretString, SecretError> {
        let path = match &self.location {
            SecretLocation::Inline(value) => return Ok(value.clone()),
            SecretLocation::File(path) => path,
        };
        let value = read_file(path).map_err(|source| SecretError::Unreadable {
            path: path.clone(),
            source,
        })?;
        if self.format.admits(value.expose_secret()) {
            Ok(value)
        } else {
            Err(SecretError::Malformed {
                path: path.clone(),
                expected: self.format.accepts(),
            })
        }
    }

    /// The file that holds the secret, when it is not inline.
    pub fn path(&self) -> Option<&Path> {
        match &self.location {
            SecretLocation::Inline(_) => None,
            SecretLocation::File(path) => Some(path),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.location {
            SecretLocation::Inline(_) => f.write_str("Secret(<hidden>)"),
            SecretLocation::File(path) => write!(f, "Secret(<hidden>, in {})", path.display()),
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
pub(super) struct SecretFormat {
    shortest: usize,
    longest: usize,
    syntax: SecretSyntax,
}

/// What a secret is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretSyntax {
    Text,
    UrlSafe,
    /// An address with `{service}` in it, or without.
    Url,
}

impl SecretFormat {
    /// A name or password towards ThingSpace.
    pub(super) const CREDENTIAL: Self = Self {
        shortest: 1,
        longest: 1024,
        syntax: SecretSyntax::Text,
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
        syntax: SecretSyntax::UrlSafe,
    };

    /// An address that may have a secret in its path or its query.
    pub(super) const URL: Self = Self {
        shortest: 1,
        longest: 2048,
        syntax: SecretSyntax::Url,
    };

    fn admits(&self, value: &str) -> bool {
        let fits = (self.shortest..=self.longest).contains(&value.chars().count());
        // A control character is a second line or a stray byte: a mistake in making the file.
        let clean = |c: char| match self.syntax {
            SecretSyntax::UrlSafe => {
                c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~')
            }
            SecretSyntax::Text | SecretSyntax::Url => !c.is_control(),
        };
        let reads = self.syntax != SecretSyntax::Url || is_template(value);
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

impl Describe for SecretFormat {
    fn accepts(&self) -> String {
        let of = match self.syntax {
            SecretSyntax::UrlSafe => "URL-safe characters (letters, digits, `-`, `_`, `.`, `~`)",
            SecretSyntax::Text => "characters, none of them a control character",
            SecretSyntax::Url => {
                return "an `http` or `https` URL without credentials or fragment".to_owned();
            }
        };
        format!("{} to {} {of}", self.shortest, self.longest)
    }

    fn placeholder(&self) -> &'static str {
        match self.syntax {
            SecretSyntax::Url => "URL",
            SecretSyntax::Text | SecretSyntax::UrlSafe => "SECRET",
        }
    }

    fn has_flag(&self) -> bool {
        // Most addresses have no secret in them.
        self.syntax == SecretSyntax::Url
    }
}
