//! Searches outputs and files for texts that a gateway must never write.
//!
//! The tests plant such texts in every input: credentials, bearer tokens, path secrets, and the names and addresses of
//! customers. [`Secrets`] finds them in the output of a process. These texts may be in no log line, error, metric, audit
//! record, journal, spool or quarantined body. The only files in the directories of a gateway that may contain them are
//! those that its settings name as inputs, such as `thingspace.uws_password_file`. A test can permit an exact text in
//! them with `Setup::stores`.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use aho_corasick::AhoCorasick;

/// Parts of texts that no process may write. A binary file contains none of them by chance.
const PLANTED: [&str; 11] = [
    // Every credential and every token of the fake ThingSpace begins with it; the second one is its base64 in the
    // header `authorization: Basic`.
    "planted-",
    "cGxhbnRlZC",
    // Customers' names and addresses: a word of each text of `PERSONAL`.
    "Wexcombe",
    "Quagga",
    "Ogdenquist",
    "Zebedee",
    "Quillfeather",
    // The header and the claims of a bearer token: `{"alg":` and `{"iss":` in base64.
    "eyJhbGciOi",
    "eyJpc3MiOi",
    // A private key in PEM, and the first bytes of one in base64.
    "PRIVATE KEY-----",
    "MIGHAgEAMBMGByqGSM49",
];
/// Begin of any JSON object in base64. Binary files contain it by chance.
const BASE64_JSON: &str = "eyJ";

/// The last parts of the settings that are secrets.
const SECRET_SETTINGS: [&str; 5] = ["username", "password", "secret", "app_key", "token"];
/// Minimum length of the value of such a setting. A shorter one can occur in other texts.
const MIN_LENGTH: usize = 8;

static PLANTED_SECRETS: LazyLock<Secrets> = LazyLock::new(|| Secrets::new([]));

/// Finds the planted texts, and the secrets of one process.
#[derive(Clone)]
pub struct Secrets {
    in_text: AhoCorasick,
    in_files: AhoCorasick,
    /// Texts that files may contain, although they contain a planted text.
    stored: Vec<String>,
}

impl Secrets {
    /// Finds the planted texts and these.
    pub fn new(own: impl IntoIterator<Item = String>) -> Self {
        let mut texts: Vec<String> = PLANTED.map(String::from).into();
        texts.extend(
            PLANTED[2..7].iter().flat_map(|name| [name.to_uppercase(), name.to_lowercase()]),
        );
        texts.extend(own);
        let search = |texts: &[String]| AhoCorasick::new(texts).expect("few texts");
        let in_files = search(&texts);
        texts.push(BASE64_JSON.to_owned());
        Self { in_text: search(&texts), in_files, stored: Vec::new() }
    }

    /// Permits files to contain these exact texts.
    pub fn except_stored(mut self, stored: &[String]) -> Self {
        self.stored = stored.to_vec();
        self
    }

    /// Finds the planted texts, the secrets in these settings, and the private keys in the files that they name.
    pub fn of_settings<'s>(settings: impl IntoIterator<Item = (&'s str, &'s str)>) -> Self {
        let mut own = Vec::new();
        for (name, value) in settings {
            let name = name.to_lowercase();
            if SECRET_SETTINGS.iter().any(|secret| name.ends_with(secret))
                && value.len() >= MIN_LENGTH
            {
                own.push(value.to_owned());
            }
            if name.ends_with("tls_key_file") {
                let key = fs::read_to_string(value).unwrap_or_default();
                own.extend(key.lines().filter(|line| line.len() > 40).map(str::to_owned));
            }
        }
        Self::new(own)
    }

    /// Returns a message if an output contains one of the texts.
    pub fn find_in_text(&self, output: &[u8]) -> Option<String> {
        let found = self.in_text.find(output)?;
        let before = output[..found.start()].rsplitn(2, |byte| *byte == b'\n').next();
        let after = output[found.end()..].split(|byte| *byte == b'\n').next();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [before, after] = [before, after].map(|part| text(part.unwrap_or_default()));
        Some(format!("{before}>>>{}<<<{after}", text(&output[found.range()])))
    }

    /// Returns a message for each file at or below `path` that contains one of the texts, except these files.
    pub fn find_below(&self, path: &Path, inputs: &[PathBuf]) -> Vec<String> {
        if path.is_dir() {
            let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
            // A running process can delete a file at any time.
            let entries = entries.filter_map(Result::ok);
            return entries.flat_map(|entry| self.find_below(&entry.path(), inputs)).collect();
        }
        if !path.is_file() || inputs.iter().any(|input| input == path) {
            return Vec::new();
        }
        let content = fs::read(path).unwrap_or_default();
        let mut found = self.in_files.find_iter(&content);
        let found = found.find(|found| !self.is_stored(&content, found.range()));
        let found = found.map(|found| {
            let around = found.start().saturating_sub(80)..content.len().min(found.end() + 80);
            let around = String::from_utf8_lossy(&content[around]).into_owned();
            format!("{}: {around:?}", path.display())
        });
        found.into_iter().collect()
    }

    /// True if a planted text is a part of a text that may be stored.
    fn is_stored(&self, content: &[u8], found: Range<usize>) -> bool {
        let planted = String::from_utf8_lossy(&content[found.clone()]);
        self.stored.iter().any(|stored| {
            let begin = stored.find(&*planted).and_then(|at| found.start.checked_sub(at));
            begin.is_some_and(|begin| content[begin..].starts_with(stored.as_bytes()))
        })
    }
}

/// Fails if an output contains a planted text.
pub fn assert_no_planted_text(what: &str, output: &[u8]) {
    if let Some(found) = PLANTED_SECRETS.find_in_text(output) {
        panic!("{what} contains a planted text: {found}");
    }
}

/// Fails if a file below `path` contains a planted text.
pub fn assert_no_planted_text_below(path: &Path) {
    let found = PLANTED_SECRETS.find_below(path, &[]);
    assert!(found.is_empty(), "files contain planted texts:\n{}", found.join("\n"));
}

/// Returns each of these texts that occurs in the bytes.
pub fn found_in<T: AsRef<str>>(bytes: &[u8], texts: &[T]) -> Vec<String> {
    let texts = texts.iter().map(AsRef::as_ref);
    let occurs = |text: &&str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
    texts.filter(occurs).map(str::to_owned).collect()
}

/// Returns each of these texts that occurs in a file below `path`, with the path of the file.
pub fn found_below<T: AsRef<str>>(path: &Path, texts: &[T]) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a directory");
        let found = entries.map(|entry| found_below(&entry.expect("an entry").path(), texts));
        return found.flatten().collect();
    }
    let found = found_in(&fs::read(path).unwrap_or_default(), texts).into_iter();
    found.map(|text| format!("{text} in {}", path.display())).collect()
}
