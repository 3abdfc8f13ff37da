//! The settings as a whole.

mod forward;
mod registration;
mod secrets;

use std::path::PathBuf;
use std::time::Duration;

use super::table::all_settings;
use super::*;

const REAL: [(&str, &str); 5] = [
    ("TSGW_THINGSPACE__APP_KEY", "hush-key"),
    ("TSGW_THINGSPACE__APP_SECRET", "hush-secret"),
    ("TSGW_THINGSPACE__UWS_USERNAME", "hush-uws-user"),
    ("TSGW_THINGSPACE__UWS_PASSWORD", "hush-uws-password"),
    ("TSGW_CALLBACKS__PATH_SECRET", "hush-0123456789abcdef"),
];

fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(sources: &Sources) -> Config {
    Config::load(sources).unwrap().config
}

/// The error of these sources, which must be one line.
fn error(sources: &Sources) -> String {
    let line = Config::load(sources).unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    line
}

fn error_for(sources: &Sources, mode: Mode) -> String {
    let line = load(sources).check_for(mode).unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    line
}

fn with(key: &str, value: &str) -> Sources {
    Sources::default().with_flag(key, value)
}

fn real() -> Sources {
    Sources::default()
        .with_environment(REAL)
        .with_flag("auth.mode", "none")
}

// === Where values come from ===

#[test]
fn a_flag_wins_over_environment_over_file_over_default() {
    let (_dir, path) = file_with("[journal]\ndir = '/file'\n[grpc]\nmax_stream_age = '1m'\n");
    let file = Sources::default().with_file(&path);
    let environment = file
        .clone()
        .with_environment([("TSGW_JOURNAL__DIR", "/environment")]);
    let flag = environment.clone().with_flag("journal.dir", "/flag");

    let dir = |sources: &Sources| load(sources).journal.dir;
    assert_eq!(dir(&Sources::default()), PathBuf::from("./data"));
    assert_eq!(dir(&file), PathBuf::from("/file"));
    assert_eq!(dir(&environment), PathBuf::from("/environment"));
    assert_eq!(dir(&flag), PathBuf::from("/flag"));

    let config = load(&flag);
    assert_eq!(config.grpc.max_stream_age, Duration::from_secs(60));
    assert_eq!(
        config.origin("journal.dir").unwrap().to_string(),
        "--journal.dir"
    );
    assert!(config.is_set("journal.dir") && !config.is_set("grpc.listen"));
}

#[test]
fn every_default_of_the_table_is_valid_and_every_key_has_documentation() {
    load(&Sources::default());
    for setting in all_settings() {
        assert!(setting.text().ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn a_file_may_be_named_by_the_environment_and_the_flag_wins() {
    let (_one, one) = file_with("[sandbox]\nseed = 1\n");
    let (_two, two) = file_with("[sandbox]\nseed = '18446744073709551615'\n");
    let environment = Sources::default().with_environment([("TSGW_CONFIG", &one)]);
    assert_eq!(load(&environment).sandbox.seed, 1);
    assert_eq!(load(&environment.with_file(two)).sandbox.seed, u64::MAX);
}

#[test]
fn lists_are_arrays_in_the_file_and_commas_elsewhere() {
    let (_dir, path) = file_with("callbacks.allow_cidrs = ['192.0.2.0/24', '198.51.100.7']\n");
    let file = load(&Sources::default().with_file(path));
    let flag = load(&with("callbacks.allow_cidrs", "192.0.2.0/24, 198.51.100.7"));
    assert_eq!(file.callbacks.allow_cidrs, flag.callbacks.allow_cidrs);
    assert_eq!(file.callbacks.allow_cidrs.len(), 2);
    assert!(
        load(&with("callbacks.require_password", ""))
            .callbacks
            .require_password
            .is_empty()
    );
}

#[test]
fn an_unknown_variable_only_warns() {
    let variables = [
        ("TSGW_PORT_9001_TCP", "tcp://10.0.0.1"),
        ("TSGW_GRPC__LISTNE", "x"),
        ("HOME", "/"),
    ];
    let warnings = Config::load(&Sources::default().with_environment(variables))
        .unwrap()
        .warnings;
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[0].contains("did you mean TSGW_GRPC__LISTEN?"),
        "{warnings:?}"
    );
}

// === Errors ===

#[test]
fn an_unknown_key_in_the_file_names_the_nearest_one() {
    let (_dir, path) = file_with("[grpc]\nlisten = '127.0.0.1:0'\n[callbacks]\npasword = 'hush'\n");
    let line = error(&Sources::default().with_file(&path));
    let expected = format!(
        "callbacks.pasword from {}: unknown key, did you mean callbacks.password?",
        path.display()
    );
    assert_eq!(line, expected);
}

#[test]
fn unknown_tables_and_broken_toml_are_one_line_each_without_the_content() {
    for (text, says) in [
        ("[nats]\n", "nats from "),
        ("[nats]\nurl = 'x'\n", "nats.url from "),
        ("grpc = 1\n", "expected a table [grpc]"),
        ("'a\\nb' = 1\n\"c\\nd\" = 2\n", "unknown key"),
        ("[callbacks]\npassword = 'hush\n", "not TOML at line 2"),
        ("[callbacks]\npassword = hush\n", "not TOML at line 2"),
        (
            "[callbacks]\npassword = 'a'\npassword = 'hush'\n",
            "not TOML at line 3",
        ),
    ] {
        let (_dir, path) = file_with(text);
        let line = error(&Sources::default().with_file(path));
        assert!(line.contains(says) && !line.contains("hush"), "{line}");
    }

    for value in [
        "\"hush\\q\"",
        "hush hush",
        "\"\"\"hush",
        "0xhush",
        "trhush",
        "'hush' hush",
        "[hush",
        "{hush",
    ] {
        let (_dir, path) = file_with(&format!("callbacks.password = {value}\n"));
        let line = error(&Sources::default().with_file(path));
        assert!(
            line.contains("not TOML at line ") && !line.contains("hush"),
            "{line}"
        );
    }
}

#[test]
fn a_port_alone_is_one_on_every_address() {
    let config = load(&with("grpc.listen", ":0"));
    assert_eq!(config.grpc.listen.to_string(), "0.0.0.0:0");
    assert!(error(&with("grpc.listen", ":x")).contains("got \":x\""));
}

#[test]
fn a_bad_value_names_key_source_value_and_what_was_expected() {
    assert_eq!(
        error(&Sources::default().with_environment([("TSGW_GRPC__LISTEN", "local\nhost")])),
        "grpc.listen from TSGW_GRPC__LISTEN: got \"local\\nhost\", expected an IP address with a \
         port, such as `127.0.0.1:9001`, `[::1]:9001` or `:9001` for any"
    );
    assert_eq!(
        error(&with("journal.engine", "jetstream")),
        "journal.engine from --journal.engine: got \"jetstream\", expected `sqlite`"
    );
    for (key, value) in [
        ("thingspace.request_timeout", "0s"),
        ("thingspace.request_timeout", "60"),
        ("changes.max_devices_per_request", "10001"),
        ("sandbox.failure_rate", "NaN"),
        ("thingspace.base_url", "ftp://example.com"),
        ("telemetry.log_filter", "info=nonsense"),
        ("callbacks.tls_cert_file", ""),
        ("callbacks.allow_cidrs", "192.0.2.0/24,,"),
    ] {
        let line = error(&with(key, value));
        assert!(
            line.starts_with(&format!("{key} from --{key}: got {value:?}, expected ")),
            "{line}"
        );
    }
}

#[test]
fn settings_that_do_not_fit_together_stop_the_start() {
    use Mode::{Sandbox, Serve, ServeSandbox};

    let no_credentials = error_for(&Sources::default(), Serve);
    assert!(
        no_credentials.starts_with("thingspace.app_key: not set"),
        "{no_credentials}"
    );
    let real_in_sandbox = error_for(&real(), ServeSandbox);
    assert!(
        real_in_sandbox.starts_with("thingspace.app_key from TSGW_"),
        "{real_in_sandbox}"
    );

    let open_auth = Sources::default().with_environment(REAL);
    let open_listener = Sources::default()
        .with_environment(REAL.into_iter().take(4))
        .with_flag("auth.mode", "none");
    for (sources, key, mode) in [
        (&open_auth, "auth.mode", Serve),
        (&open_listener, "callbacks.listen", Serve),
        (
            &with("thingspace.base_url", "http://127.0.0.1:1"),
            "thingspace.base_url",
            ServeSandbox,
        ),
        (
            &with("callbacks.tls_key_file", "k"),
            "callbacks.tls_key_file",
            ServeSandbox,
        ),
        (
            &with("grpc.max_stream_age", "30m"),
            "grpc.max_stream_age",
            ServeSandbox,
        ),
        (
            &Sources::default().with_environment([("TSGW_CALLBACKS__USERNAME", "u")]),
            "callbacks.username",
            ServeSandbox,
        ),
    ] {
        let line = error_for(sources, mode);
        assert!(line.starts_with(key), "{line}");
    }

    for (sources, mode) in [
        (real(), Serve),
        (open_auth.with_flag("grpc.listen", "127.0.0.1:0"), Serve),
        (
            open_listener
                .clone()
                .with_flag("callbacks.insecure", "true"),
            Serve,
        ),
        (
            open_listener.with_flag("callbacks.listen", "[::1]:9001"),
            Serve,
        ),
        (Sources::default(), ServeSandbox),
        (real(), Sandbox),
    ] {
        assert_eq!(
            load(&sources).check_for(mode).unwrap(),
            Vec::<String>::new()
        );
    }
}

#[test]
fn serve_sandbox_listens_for_callbacks_on_loopback_by_default() {
    let mut config = load(&Sources::default());
    config.check_for(Mode::ServeSandbox).unwrap();
    assert_eq!(config.callbacks.listen.to_string(), "127.0.0.1:0");

    let mut config = load(&with("callbacks.listen", "0.0.0.0:9001"));
    config.check_for(Mode::ServeSandbox).unwrap();
    assert_eq!(config.callbacks.listen.to_string(), "0.0.0.0:9001");
}

#[test]
fn the_uws_password_is_not_to_be_used_for_callbacks() {
    let sources = real().with_environment([
        ("TSGW_CALLBACKS__USERNAME", "someone"),
        ("TSGW_CALLBACKS__PASSWORD", "hush-uws-password"),
    ]);
    let warnings = load(&sources).check_for(Mode::Serve).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("callbacks.password equals"),
        "{warnings:?}"
    );
}

#[test]
fn a_retention_below_close_after_is_rejected() {
    for (retention, close_after) in [("6d", None), ("29d", Some("30d"))] {
        let mut sources = real().with_flag("journal.retention", retention);
        if let Some(close_after) = close_after {
            sources = sources.with_flag("changes.close_after", close_after);
        }
        for mode in [Mode::Serve, Mode::ServeSandbox] {
            let sources = if mode == Mode::Serve {
                sources.clone()
            } else {
                with("journal.retention", "6d")
            };
            let line = error_for(&sources, mode);
            assert!(
                line.contains("journal.retention") && line.contains("changes.close_after"),
                "{line}"
            );
        }
    }
    let mut equal = load(&real().with_flag("journal.retention", "7d"));
    equal.check_for(Mode::Serve).unwrap();
}

// === Show and documentation ===

#[test]
fn what_show_prints_loads_to_the_same_settings() {
    let sources = with("journal.retention", "1h 30m")
        .with_flag("sandbox.seed", "18446744073709551615")
        .with_flag("sandbox.failure_rate", "0.25")
        .with_flag("callbacks.allow_cidrs", "192.0.2.0/24,::1")
        .with_flag("auth.mode", "none");
    let shown = render_toml(&load(&sources), Mode::ServeSandbox);
    assert!(
        shown.contains("retention = \"90m\" # from --journal.retention"),
        "{shown}"
    );
    assert!(
        shown.contains("listen = \"127.0.0.1:0\" # default"),
        "{shown}"
    );

    let (_dir, path) = file_with(&shown);
    let again = render_toml(
        &load(&Sources::default().with_file(path)),
        Mode::ServeSandbox,
    );
    let values = |text: &str| -> Vec<_> {
        text.lines()
            .map(|line| line.split(" # ").next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(values(&again), values(&shown));
}

#[test]
fn the_documentation_of_the_settings_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == markdown(),
        "docs/settings.md is stale: run `cargo run -- config docs > docs/settings.md`"
    );
}
