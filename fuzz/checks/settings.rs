//! The settings file, which can contain secrets.

use std::{fs, path::Path};

use tempfile::TempDir;
use thingspace_gateway::config::{Config, Mode, Sources};
use toml::{Table, Value};

use super::{SECRET, contains_secret};

/// Settings whose value is never shown (docs/settings.md).
const SECRETS: [&str; 9] = [
    "app_key",
    "app_secret",
    "uws_username",
    "uws_password",
    "username",
    "password",
    "previous_username",
    "previous_password",
    "path_secret",
];

thread_local! {
    static DIRECTORY: TempDir = directory();
}

fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    let directory = in_memory.flatten().or_else(|| tempfile::tempdir().ok());
    directory.expect("a temporary directory")
}

pub fn check(data: &[u8]) {
    // The settings can name files that are read. Devices are excluded.
    if String::from_utf8_lossy(data).contains("/dev") {
        return;
    }
    let path = DIRECTORY.with(|directory| directory.path().join("settings.toml"));
    fs::write(&path, data).expect("enough space");
    let hides = String::from_utf8_lossy(data).contains(SECRET) && is_only_secret(data);
    let result = Config::load(&Sources::default().with_file(&path));
    let mut loaded = match result {
        Ok(loaded) => loaded,
        Err(error) => return check_error_message(&error.to_string(), error.key(), hides),
    };
    let mut shown = loaded.warnings.clone();
    shown.push(format!("{:?}", loaded.config));
    for mode in [Mode::Serve, Mode::ServeSandbox, Mode::Sandbox] {
        loaded.config.apply_mode_defaults(mode);
        shown.push(loaded.config.to_toml());
        match loaded.config.check_for(mode) {
            Ok(warnings) => shown.extend(warnings),
            Err(error) => check_error_message(&error.to_string(), error.key(), hides),
        }
    }
    for text in shown {
        assert!(!hides || !contains_secret(&text), "{text}");
    }
}

/// An error is one line that names a key and no secret.
fn check_error_message(line: &str, key: &str, hides: bool) {
    assert!(!line.contains('\n') && !line.is_empty());
    assert!(line.contains(key), "{line}");
    assert!(!hides || !contains_secret(line), "{line}");
}

/// True if the secret occurs only as the value of secret settings.
fn is_only_secret(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    match text.parse::<Table>() {
        Ok(table) => {
            let elsewhere = table.iter().map(|(name, value)| count(name, value));
            elsewhere.sum::<usize>() == 0
        }
        // A message about invalid TOML can repeat names, but no values.
        Err(_) => text.lines().all(|line| {
            !contains_secret(line)
                || line.split_once('=').is_some_and(|(name, _)| {
                    !contains_secret(name)
                        && SECRETS.contains(&name.trim().rsplit('.').next().unwrap_or(""))
                })
        }),
    }
}

/// Counts the secrets in other settings and in names.
fn count(name: &str, value: &Value) -> usize {
    let here = usize::from(contains_secret(name));
    here + match value {
        Value::Table(table) => table.iter().map(|(name, value)| count(name, value)).sum(),
        _ if SECRETS.contains(&name) => 0,
        value => usize::from(contains_secret(&value.to_string())),
    }
}
