//! Secrets, given inline or in a file.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret as _, SecretString};

use crate::kind::{Description, Kind, Syntax, toml_string};

/// Maximum size of a secret's file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A secret, or the file that contains it. `Debug` shows neither its value nor its length.
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

/// A secret's file that cannot be read or has invalid content. `Display` is one line without the
/// secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(String);

impl Secret {
    /// Wraps a value that the program generated itself.
    pub fn new(value: impl Into<SecretString>) -> Self {
        Self { location: SecretLocation::Inline(value.into()), format: SecretFormat::text(1024) }
    }

    pub(crate) fn in_file(path: PathBuf, format: SecretFormat) -> Self {
        Self { location: SecretLocation::File(path), format }
    }

    /// Returns the current value. Reads the file at each call, so that a rotation takes effect. One
    /// newline at the end of the file is not part of the secret.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if the file cannot be read or its content is not valid for the setting.
    pub fn load(&self) -> Result<SecretString, SecretError> {
        let path = match &self.location {
            SecretLocation::Inline(value) => return Ok(value.clone()),
            SecretLocation::File(path) => path,
        };
        let value = read_file(path).map_err(|error| {
            SecretError(format!("cannot read the secret in {}: {error}", path.display()))
        })?;
        if self.format.is_valid(value.expose_secret()) {
            return Ok(value);
        }
        let accepts = self.format.describe().accepts;
        Err(SecretError(format!("the secret in {} is not {accepts}", path.display())))
    }

    /// The file that contains the secret, or `None` for an inline value.
    pub fn path(&self) -> Option<&Path> {
        match &self.location {
            SecretLocation::Inline(_) => None,
            SecretLocation::File(path) => Some(path),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            SecretLocation::Inline(_) => f.write_str("Secret(<hidden>)"),
            SecretLocation::File(path) => write!(f, "Secret(<hidden>, in {})", path.display()),
        }
    }
}

/// Reads a file, without the newline that editors and `echo` append.
fn read_file(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 KiB"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text.into())
}

/// Format of a secret's value.
#[derive(Clone, Copy, Debug)]
pub struct SecretFormat {
    /// Minimum length, in characters.
    pub min: usize,
    /// Maximum length, in characters.
    pub max: usize,
    /// Valid characters.
    pub syntax: SecretSyntax,
}

/// Characters of a secret.
#[derive(Clone, Copy, Debug)]
pub enum SecretSyntax {
    /// Any characters except control characters.
    Text,
    /// Letters, digits, `-`, `_`, `.` and `~`.
    UrlSafe,
    /// A URL, or a template of one, that the function accepts.
    Url(fn(&str) -> bool),
}

impl SecretFormat {
    /// A text of 1 to `max` characters.
    pub const fn text(max: usize) -> Self {
        Self { min: 1, max, syntax: SecretSyntax::Text }
    }

    fn is_valid(&self, value: &str) -> bool {
        let is_url_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
        // A control character indicates a mistake in the file, such as a second line.
        (self.min..=self.max).contains(&value.chars().count())
            && !value.chars().any(char::is_control)
            && match self.syntax {
                SecretSyntax::Text => true,
                SecretSyntax::UrlSafe => value.chars().all(is_url_safe),
                SecretSyntax::Url(is_valid_url) => is_valid_url(value),
            }
    }
}

impl Kind for SecretFormat {
    type Value = Secret;
    fn describe(&self) -> Description {
        let length = format!("{} to {}", self.min, self.max);
        let (accepts, placeholder, syntax) = match self.syntax {
            SecretSyntax::Text => (
                format!("{length} characters, none of them a control character"),
                "SECRET",
                Syntax::Secret,
            ),
            SecretSyntax::UrlSafe => (
                format!("{length} URL-safe characters (letters, digits, `-`, `_`, `.`, `~`)"),
                "SECRET",
                Syntax::Secret,
            ),
            SecretSyntax::Url(_) => (
                "an `http` or `https` URL without credentials or fragment".to_owned(),
                "URL",
                Syntax::SecretUrl,
            ),
        };
        Description { syntax, ..Description::scalar(accepts, placeholder) }
    }

    fn parse(&self, text: &str) -> Option<Secret> {
        self.is_valid(text)
            .then(|| Secret { location: SecretLocation::Inline(text.into()), format: *self })
    }

    /// Formats the path of the secret's file, or a placeholder for an inline secret.
    fn toml(&self, value: &Secret) -> String {
        match value.path() {
            Some(path) => toml_string(&path.to_string_lossy()),
            None => toml_string("<hidden>"),
        }
    }
}
