use super::*;

fn secrets() -> impl Iterator<Item = &'static str> {
    TABLE.settings().filter(|s| s.file_key.is_some()).map(|s| s.key)
}

#[test]
fn no_secret_is_seen_in_debug_or_show() {
    let sources = secrets().fold(Sources::default(), |sources, key| {
        let value = match key {
            "callbacks.forward_url" => "https://example.com/hush?hush=0123456789abcdef",
            "journal.url" => "postgresql://hush:hush@hush/hush",
            _ => "hush-0123456789abcdef",
        };
        sources.with_environment([(TABLE.env_name(key), value)])
    });
    let config = load(&sources);
    let shown = config.to_toml();
    for text in [format!("{config:?}"), format!("{sources:?}"), shown.clone()] {
        assert!(!text.contains("hush"), "{text}");
    }
    assert_eq!(shown.matches("\"<hidden>\" # from TSGW_").count(), secrets().count());
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
        let in_file = environment(TABLE.env_name(key) + "_FILE", secret_file.to_str().unwrap());
        for sources in [
            environment(TABLE.env_name(key), &long),
            environment(TABLE.env_name(key), "hush\n"),
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
