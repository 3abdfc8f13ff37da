//! Searches outputs and files for secrets.

use std::{fs, path::Path};

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
