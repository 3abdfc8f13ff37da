//! The rooms of the house: each imports only from those below it.

use std::{collections::BTreeSet, fs, path::Path};

/// Each room, and what it may name of the crate (ARCHITECTURE.md).
const ROOMS: [(&str, &[&str]); 13] = [
    (
        "cli",
        &[
            "api",
            "app",
            "config",
            "journal",
            "proto",
            "sandbox",
            "telemetry",
        ],
    ),
    (
        "app",
        &[
            "api",
            "config",
            "domain",
            "journal",
            "listener",
            "sandbox",
            "submit",
            "telemetry",
            "thingspace",
            "upkeep",
            "watch",
        ],
    ),
    (
        "api",
        &[
            "domain",
            "journal",
            "proto",
            "submit",
            "telemetry",
            "thingspace",
            "watch",
        ],
    ),
    ("listener", &["domain", "journal", "telemetry"]),
    ("submit", &["domain", "journal", "telemetry", "thingspace"]),
    ("upkeep", &["domain", "journal", "telemetry", "thingspace"]),
    ("watch", &["domain", "journal", "telemetry"]),
    ("thingspace", &["domain", "telemetry"]),
    ("journal", &["domain", "telemetry"]),
    ("domain", &[]),
    ("sandbox", &["domain"]),
    ("config", &[]),
    ("telemetry", &[]),
];

#[test]
fn each_room_imports_only_from_rooms_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let found: BTreeSet<String> = fs::read_dir(&src)
        .expect("src")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(
        found.iter().map(String::as_str).eq(names.iter().copied()),
        "{found:?}"
    );

    let mut trespasses = Vec::new();
    for (room, below) in ROOMS {
        for file in rust_files(&src.join(room)) {
            let text = fs::read_to_string(&file).expect("a source file");
            for name in named(&text) {
                let known = names.contains(name.as_str()) || name == "proto";
                if known && name != room && !below.contains(&name.as_str()) {
                    trespasses.push(format!("{} names {name}", file.display()));
                }
            }
        }
    }
    assert!(trespasses.is_empty(), "{trespasses:#?}");
}

fn rust_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a room") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Every `crate::name`, and every name of a `use crate::{name…, name…}`.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let mut depth = 0;
        let mut word = String::new();
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                c if c.is_alphanumeric() || c == '_' => {
                    word.push(c);
                    continue;
                }
                _ => {}
            }
            let is_top = depth == 0 || (depth == 1 && c != '{') || (depth == 2 && c == '{');
            if is_top && !word.is_empty() {
                names.insert(word.clone());
            }
            word.clear();
            if depth <= 0 {
                break;
            }
        }
    }
    names
}
