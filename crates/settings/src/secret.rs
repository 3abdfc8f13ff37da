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
pub struct Secret(Location);

#[derive(Clone)]
enum Location {
    Inline(SecretString),
    File(PathBuf, SecretFormat),
}

impl Secret {
    /// Wraps a value that the program generated itself.
    pub fn new(value: impl Into<SecretString>) -> Self {
        Self(Location::Inline(value.into()))
    }

    /// Refers to a file. [`load`](Self::load) reads it.
    pub fn in_file(path: PathBuf, format: SecretFormat) -> Self {
        Self(Location::File(path, format))
    }

    /// Returns the current value. Reads the file at each call, so that a rotation takes effect. One
    /// newline at the end of the file is not part of the secret.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or its content is not valid for the setting. `Display` is one line
    /// without the secret.
    pub fn load(&self) -> io::Result<SecretString> {
        let (path, format) = match &self.0 {
            Location::Inline(value) => return Ok(value.clone()),
            Location::File(path, format) => (path, format),
        };
        let value = read_file(path).map_err(|error| {
            io::Error::other(format!("cannot read the secret in {}: {error}", path.display()))
        })?;
        if format.is_valid(value.expose_secret()) {
            return Ok(value);
        }
        let accepts = format.describe().accepts;
        Err(io::Error::other(format!("the secret in {} is not {accepts}", path.display())))
    }

    /// The file that contains the secret, or `None` for an inline value.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Location::Inline(_) => None,
            Location::File(path, _) => Some(path),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Location::Inline(_) => f.write_str("Secret(<hidden>)"),
            Location::File(path, _) => write!(f, "Secret(<hidden>, in {})", path.display()),
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
    if let Some(line) = text.strip_suffix('\n') {
        text.truncate(line.strip_suffix('\r').unwrap_or(line).len());
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
    /// A URL of a database, with one of these schemes. Its parser checks the rest.
    DatabaseUrl(&'static [&'static str]),
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
                SecretSyntax::DatabaseUrl(schemes) => {
                    let scheme = value.split_once("://").map(|(scheme, _)| scheme);
                    scheme.is_some_and(|scheme| schemes.contains(&scheme))
                }
            }
    }
}

impl Kind for SecretFormat {
    type Value = Secret;
    fn describe(&self) -> Description {
        let length = format!("{} to {}", self.min, self.max);
        let url = |accepts: &str| Description {
            syntax: Syntax::SecretUrl,
            ..Description::scalar(accepts, "URL")
        };
        let accepts = match self.syntax {
            SecretSyntax::Text => format!("{length} characters, none of them a control character"),
            SecretSyntax::UrlSafe => {
                format!("{length} URL-safe characters (letters, digits, `-`, `_`, `.`, `~`)")
            }
            SecretSyntax::Url(_) => {
                return url("an `http` or `https` URL without credentials or fragment");
            }
            SecretSyntax::DatabaseUrl(schemes) => {
                let schemes = schemes.iter().map(|scheme| format!("`{scheme}://`"));
                let schemes = schemes.collect::<Vec<_>>().join(" or ");
                return url(&format!("a URL that begins with {schemes}"));
            }
        };
        Description { syntax: Syntax::Secret, ..Description::scalar(accepts, "SECRET") }
    }

    fn parse(&self, text: &str) -> Option<Secret> {
        self.is_valid(text).then(|| Secret::new(text))
    }

    /// Formats the path of the secret's file, or a placeholder for an inline secret.
    fn toml(&self, value: &Secret) -> String {
        toml_string(&value.path().map_or("<hidden>".into(), Path::to_string_lossy))
    }
}
