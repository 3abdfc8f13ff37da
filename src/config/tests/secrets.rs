//! What must never be seen, and where it is read from.

use secrecy::ExposeSecret as _;

use super::*;
use crate::config::table::env_name;

fn secrets() -> impl Iterator<Item = &'static str> {
    all_settings()
        .filter(|s| s.file_key.is_some())
        .map(|s| s.key)
}

#[test]
fn no_secret_is_seen_in_debug_or_show() {
    let sources = secrets().fold(Sources::default(), |sources, key| {
        let value = match key {
            "callbacks.forward_url" => "https://example.com/hush?hush=0123456789abcdef",
            _ => "hush-0123456789abcdef",
        };
        sources.with_environment([(env_name(key), value)])
    });
    let config = load(&sources);
    let shown = render_toml(&config, Mode::Serve);
    for text in [format!("{config:?}"), format!("{sources:?}"), shown.clone()] {
        assert!(!text.contains("hush"), "{text}");
    }
    assert_eq!(
        shown.matches("\"<hidden>\" # from TSGW_").count(),
        secrets().count()
    );
}

#[test]
fn no_secret_is_seen_in_an_error_wherever_it_comes_from() {
    let long = "hush".repeat(1000);
    let (_secret_dir, secret_file) = file_with(&long);
    for key in secrets() {
        let environment = |name: String, value: &str| {
            Sources::default().with_environment([(name, value.to_owned())])
        };
        let (_dir, string) = file_with(&format!("{key} = '{long}'\n"));
        let (_dir2, array) = file_with(&format!("{key} = ['hush']\n"));
        let in_file = environment(env_name(key) + "_FILE", secret_file.to_str().unwrap());
        for sources in [
            environment(env_name(key), &long),
            environment(env_name(key), "hush\n"),
            in_file,
            Sources::default().with_file(string),
            Sources::default().with_file(array),
            with(key, "hush"),
        ] {
            let line = error(&sources);
            assert!(line.starts_with(key) && !line.contains("hush"), "{line}");
        }
    }
    let line = error(&with("thingspace.base_url", "https://me:hush@example.com"));
    assert!(line.contains("got <hidden>"), "{line}");
}

#[test]
fn a_secret_file_is_read_again_and_loses_one_newline() {
    let (_dir, path) = file_with("first\n\n");
    let sources = with("thingspace.app_key_file", path.to_str().unwrap());
    assert!(
        error(&sources).starts_with("thingspace.app_key_file from --thingspace.app_key_file: ")
    );

    std::fs::write(&path, "first\r\n").unwrap();
    let config = load(&sources);
    assert!(config.is_set("thingspace.app_key"));
    let secret = config.thingspace.app_key.unwrap();
    assert_eq!(secret.load().unwrap().expose_secret(), "first");
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(secret.load().unwrap().expose_secret(), "second");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(secret.load(), Err(SecretError::Unreadable { .. })));
}

#[test]
fn a_secret_and_its_file_exclude_each_other_in_one_source_only() {
    let (_dir, path) = file_with("from-file");
    let inline = Sources::default().with_environment([("TSGW_THINGSPACE__APP_KEY", "inline")]);
    let both = inline
        .clone()
        .with_environment([("TSGW_THINGSPACE__APP_KEY_FILE", &path)]);
    assert!(error(&both).contains("expected only one of them"));

    let flag_wins = load(&inline.with_flag("thingspace.app_key_file", path.to_str().unwrap()));
    let secret = flag_wins.thingspace.app_key.unwrap().load().unwrap();
    assert_eq!(secret.expose_secret(), "from-file");
}
