mod auth;
mod forward;
mod registration;
mod secrets;

use std::path::PathBuf;

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

/// Returns the error of these sources, which must be one line.
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
    Sources::default().with_environment(REAL).with_flag("auth.mode", "none")
}

#[test]
fn every_default_of_the_table_is_valid_and_every_key_has_documentation() {
    load(&Sources::default());
    for setting in TABLE.settings() {
        assert!(setting.doc.ends_with('.'), "{}", setting.key);
    }
}

#[test]
fn a_bad_value_names_key_source_value_and_what_was_expected() {
    assert_eq!(
        error(&with("journal.engine", "jetstream")),
        "journal.engine from --journal.engine: got \"jetstream\", expected `sqlite` or `postgres`"
    );
    for (key, value) in [
        ("thingspace.request_timeout", "0s"),
        ("thingspace.request_timeout", "60"),
        ("changes.max_devices_per_request", "10001"),
        ("sandbox.failure_rate", "NaN"),
        ("sandbox.initial_plan", "it's"),
        ("thingspace.base_url", "ftp://example.com"),
        ("telemetry.log_filter", "info=nonsense"),
        ("callbacks.tls_cert_file", ""),
        ("callbacks.allow_cidrs", "192.0.2.0/24,,"),
        ("callbacks.require_password", "Carrier-Service"),
    ] {
        let line = error(&with(key, value));
        assert!(
            line.starts_with(&format!("{key} from --{key}: got {value:?}, expected ")),
            "{line}"
        );
    }
}

// === Combinations ===

#[test]
fn settings_that_do_not_fit_together_stop_the_start() {
    use Mode::{Sandbox, Serve, ServeSandbox};

    let no_credentials = error_for(&Sources::default(), Serve);
    assert!(no_credentials.starts_with("thingspace.app_key: not set"), "{no_credentials}");
    let real_in_sandbox = error_for(&real(), ServeSandbox);
    assert!(real_in_sandbox.starts_with("thingspace.app_key from TSGW_"), "{real_in_sandbox}");

    let open_auth = Sources::default().with_environment(REAL);
    let open_listener = Sources::default()
        .with_environment(REAL.into_iter().take(4))
        .with_flag("auth.mode", "none");
    for (sources, key, mode) in [
        (&open_auth, "auth.mode", Serve),
        (&open_listener, "callbacks.listen", Serve),
        (&with("thingspace.base_url", "http://127.0.0.1:1"), "thingspace.base_url", ServeSandbox),
        (&with("callbacks.tls_key_file", "k"), "callbacks.tls_key_file", ServeSandbox),
        (&with("grpc.tls_cert_file", "c"), "grpc.tls_cert_file", ServeSandbox),
        (&with("grpc.tls_client_ca_file", "ca"), "grpc.tls_client_ca_file", ServeSandbox),
        (&with("grpc.max_stream_age", "30m"), "grpc.max_stream_age", ServeSandbox),
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
        (open_listener.clone().with_flag("callbacks.insecure", "true"), Serve),
        (open_listener.with_flag("callbacks.listen", "[::1]:9001"), Serve),
        (Sources::default(), ServeSandbox),
        (real(), Sandbox),
    ] {
        assert_eq!(load(&sources).check_for(mode).unwrap(), Vec::<String>::new());
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
    assert!(warnings[0].starts_with("callbacks.password equals"), "{warnings:?}");
}

#[test]
fn the_spool_needs_a_directory_of_its_own() {
    let sources = real().with_flag("journal.dir", "/data/journal");
    for (dir, is_valid) in
        [("/data/spool", true), ("/data/journal/", false), ("/data/./journal", false)]
    {
        let sources = sources.clone().with_flag("journal.spool_dir", dir);
        let checked = load(&sources).check_for(Mode::Serve);
        assert_eq!(checked.is_ok(), is_valid, "{dir}");
    }
    let warnings = load(&sources.with_flag("journal.spool_max_bytes", "2000000"));
    let warnings = { warnings }.check_for(Mode::Serve).unwrap();
    assert_eq!(warnings, ["journal.spool_max_bytes has no effect without journal.spool_dir"]);
}

#[test]
fn a_retention_below_close_after_is_rejected() {
    for (retention, close_after) in [("6d", None), ("29d", Some("30d"))] {
        let mut sources = real().with_flag("journal.retention", retention);
        if let Some(close_after) = close_after {
            sources = sources.with_flag("changes.close_after", close_after);
        }
        for mode in [Mode::Serve, Mode::ServeSandbox] {
            let sources =
                if mode == Mode::Serve { sources.clone() } else { with("journal.retention", "6d") };
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

fn render_toml(mut config: Config, mode: Mode) -> String {
    config.apply_mode_defaults(mode);
    config.to_toml()
}

#[test]
fn shown_settings_load_to_the_same_settings() {
    let sources = with("journal.retention", "1h 30m")
        .with_flag("sandbox.seed", "18446744073709551615")
        .with_flag("sandbox.failure_rate", "0.25")
        .with_flag("callbacks.allow_cidrs", "192.0.2.0/24,::1")
        .with_flag("thingspace.accounts", "0000123456-00001")
        .with_flag("auth.mode", "none");
    let shown = render_toml(load(&sources), Mode::ServeSandbox);
    assert!(shown.contains("retention = \"90m\" # from --journal.retention"), "{shown}");
    assert!(shown.contains("listen = \"127.0.0.1:0\" # default"), "{shown}");

    let (_dir, path) = file_with(&shown);
    let again = load(&Sources::default().with_file(path));
    let values = |text: &str| -> Vec<_> {
        text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect()
    };
    let again = render_toml(again, Mode::ServeSandbox);
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

#[test]
fn a_policy_file_is_set_if_clients_are_authenticated_and_only_then() {
    let sources = real().with_flag("auth.policy_file", "/etc/policy.toml");
    assert_eq!(
        error_for(&sources, Mode::Serve),
        "auth.policy_file from --auth.policy_file: set, expected unset, or an auth.mode other than \
         none with it"
    );
}
