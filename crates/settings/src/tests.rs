#![allow(unreachable_pub, reason = "the macro generates the public items of a program")]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use secrecy::ExposeSecret as _;
use url::Url;

use crate::*;

choices! {
    /// Storage engine.
    Engine {
        /// In one directory.
        Local = "local",
        /// In a database.
        Shared = "shared",
    }
}

settings! {
    /// Settings of the tests.
    TestConfig, variables "APP_";

    /// The server.
    server: ServerConfig {
        /// Address of the server. Port 0 selects a free port.
        listen: SocketAddr = WithDefault(SocketAddress) or "0.0.0.0:80";
        /// Maximum age of a connection.
        max_age: Duration = WithDefault(DurationRange { min: "1s", max: "1d" }) or "30m";
        /// Networks of clients.
        networks: Vec<IpNet> = WithDefault(list_of::<IpNet>()) or "";
        /// Password of clients.
        password: Option<Secret> = Sensitive(SecretFormat::text(40));
        /// Secret segment of the path.
        path_secret: Option<Secret> = Sensitive(PATH_SECRET);
        /// URL that is notified.
        webhook: Option<Secret> = Sensitive(WEBHOOK);
        /// Public URL of the server.
        base_url: Option<Url> = Optional(HttpUrl);
        /// Allows clients without a password.
        insecure: bool = WithDefault(Switch) or "false";
    }

    /// The storage.
    storage: StorageConfig {
        /// Storage engine.
        engine: Engine = WithDefault(one_of::<Engine>()) or "local";
        /// Directory of the storage.
        dir: PathBuf = WithDefault(FilePath) or "./data";
        /// Random seed.
        seed: u64 = WithDefault(Number { min: 0, max: u64::MAX }) or "0";
        /// Fraction of writes that fail.
        failure_rate: f64 = WithDefault(Number { min: 0.0, max: 1.0 }) or "0";
    }
}

const PATH_SECRET: SecretFormat = SecretFormat { min: 16, max: 128, syntax: SecretSyntax::UrlSafe };

const WEBHOOK: SecretFormat =
    SecretFormat { min: 1, max: 100, syntax: SecretSyntax::Url(|text| Url::parse(text).is_ok()) };

fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(sources: &Sources) -> TestConfig {
    TestConfig::load(sources).unwrap().config
}

/// Returns the error of these sources, which must be one line.
fn error(sources: &Sources) -> String {
    let line = TestConfig::load(sources).unwrap_err().to_string();
    assert_eq!(line.lines().count(), 1, "{line:?}");
    line
}

fn with(key: &str, value: &str) -> Sources {
    Sources::default().with_flag(key, value)
}

fn with_file(path: &Path) -> Sources {
    Sources::default().with_file(path)
}

// === Sources ===

#[test]
fn a_flag_wins_over_environment_over_file_over_default() {
    let (_dir, path) = file_with("[storage]\ndir = '/file'\n[server]\nmax_age = '1m'\n");
    let file = with_file(&path);
    let environment = file.clone().with_environment([("APP_STORAGE__DIR", "/environment")]);
    let flag = environment.clone().with_flag("storage.dir", "/flag");

    let dir = |sources: &Sources| load(sources).storage.dir;
    assert_eq!(dir(&Sources::default()), PathBuf::from("./data"));
    assert_eq!(dir(&file), PathBuf::from("/file"));
    assert_eq!(dir(&environment), PathBuf::from("/environment"));
    assert_eq!(dir(&flag), PathBuf::from("/flag"));

    let config = load(&flag);
    assert_eq!(config.server.max_age, Duration::from_secs(60));
    let error = config.error("storage.dir", "full").to_string();
    assert_eq!(error, "storage.dir from --storage.dir: full");
    assert!(config.is_set("storage.dir") && !config.is_set("server.listen"));
    let set: Vec<_> = config.set_keys().collect();
    assert_eq!(set, ["server.max_age", "storage.dir"]);
}

#[test]
fn a_file_may_be_named_by_the_environment_and_the_flag_wins() {
    let (_one, one) = file_with("[storage]\nseed = 1\n");
    let (_two, two) = file_with("[storage]\nseed = '18446744073709551615'\n");
    let environment = Sources::default().with_environment([("APP_CONFIG", &one)]);
    assert_eq!(load(&environment).storage.seed, 1);
    assert_eq!(load(&environment.with_file(two)).storage.seed, u64::MAX);
}

#[test]
fn lists_are_arrays_in_the_file_and_commas_elsewhere() {
    let (_dir, path) = file_with("server.networks = ['192.0.2.0/24', '198.51.100.7']\n");
    let file = load(&with_file(&path)).server.networks;
    let flag = load(&with("server.networks", "192.0.2.0/24, 198.51.100.7"));
    assert_eq!(file, flag.server.networks);
    assert_eq!(file.len(), 2);
    let empty = load(&with("server.networks", ""));
    assert!(empty.server.networks.is_empty());
}

#[test]
fn an_unknown_variable_only_warns() {
    let variables =
        [("APP_PORT_9001_TCP", "tcp://10.0.0.1"), ("APP_SERVER__LISTNE", "x"), ("HOME", "/")];
    let sources = Sources::default().with_environment(variables);
    let warnings = TestConfig::load(&sources).unwrap().warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].contains("did you mean APP_SERVER__LISTEN?"), "{warnings:?}");
}

// === Errors ===

#[test]
fn an_unknown_key_in_the_file_names_the_nearest_one() {
    let (_dir, path) = file_with("[storage]\ndir = '/'\n[server]\npasword = 'hush'\n");
    let expected = format!(
        "server.pasword from {}: unknown key, did you mean server.password?",
        path.display()
    );
    assert_eq!(error(&with_file(&path)), expected);
}

#[test]
fn unknown_tables_and_broken_toml_are_one_line_each_without_the_content() {
    for (text, expected) in [
        ("[nats]\n", "nats from "),
        ("[nats]\nurl = 'x'\n", "nats.url from "),
        ("server = 1\n", "expected a table [server]"),
        ("'a\\nb' = 1\n\"c\\nd\" = 2\n", "unknown key"),
        ("[server]\npassword = 'hush\n", "not TOML at line 2"),
        ("[server]\npassword = hush\n", "not TOML at line 2"),
        ("[server]\npassword = 'a'\npassword = 'hush'\n", "not TOML at line 3"),
    ] {
        let (_dir, path) = file_with(text);
        let line = error(&with_file(&path));
        assert!(line.contains(expected) && !line.contains("hush"), "{line}");
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
        let (_dir, path) = file_with(&format!("server.password = {value}\n"));
        let line = error(&with_file(&path));
        assert!(line.contains("not TOML at line ") && !line.contains("hush"), "{line}");
    }
}

#[test]
fn a_port_alone_is_one_on_every_address() {
    let config = load(&with("server.listen", ":0"));
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:0");
    assert!(error(&with("server.listen", ":x")).contains("got \":x\""));
}

#[test]
fn a_bad_value_names_key_source_value_and_what_was_expected() {
    assert_eq!(
        error(&Sources::default().with_environment([("APP_SERVER__LISTEN", "local\nhost")])),
        "server.listen from APP_SERVER__LISTEN: got \"local\\nhost\", expected an IP address with a \
         port, such as `127.0.0.1:9001`, `[::1]:9001` or `:9001` for any"
    );
    assert_eq!(
        error(&with("storage.engine", "jetstream")),
        "storage.engine from --storage.engine: got \"jetstream\", expected `local` or `shared`"
    );
    for (key, value) in [
        ("server.max_age", "0s"),
        ("server.max_age", "60"),
        ("storage.failure_rate", "NaN"),
        ("storage.seed", "-1"),
        ("server.base_url", "ftp://example.com"),
        ("storage.dir", ""),
        ("server.networks", "192.0.2.0/24,,"),
    ] {
        let line = error(&with(key, value));
        assert!(
            line.starts_with(&format!("{key} from --{key}: got {value:?}, expected ")),
            "{line}"
        );
    }
}

#[test]
fn an_error_of_the_program_names_the_source_of_the_key() {
    let config = load(&with("storage.dir", "/full"));
    assert_eq!(
        config.error("storage.dir", "no space left").to_string(),
        "storage.dir from --storage.dir: no space left"
    );
    let error = config.error("storage.seed", "not\nallowed");
    assert_eq!(error.to_string(), "storage.seed: not\\nallowed");
    assert_eq!(error.key(), "storage.seed");
}

#[test]
fn an_error_does_not_repeat_a_url_that_may_contain_a_secret() {
    let line = error(&with("server.base_url", "https://me:hush@example.com"));
    assert!(line.contains("got <hidden>"), "{line}");
}

// === Secrets ===

#[test]
fn a_secret_file_is_read_again_and_loses_one_newline() {
    let (_dir, path) = file_with("first\n\n");
    let sources = with("server.password_file", path.to_str().unwrap());
    assert!(error(&sources).starts_with("server.password_file from --server.password_file: "));

    std::fs::write(&path, "first\r\n").unwrap();
    let config = load(&sources);
    assert!(config.is_set("server.password"));
    let secret = config.server.password.unwrap();
    assert_eq!(secret.load().unwrap().expose_secret(), "first");
    std::fs::write(&path, "second\n").unwrap();
    assert_eq!(secret.load().unwrap().expose_secret(), "second");
    std::fs::remove_file(&path).unwrap();
    let error = secret.load().unwrap_err().to_string();
    assert!(error.starts_with("cannot read the secret in "), "{error}");
}

#[test]
fn a_secret_and_its_file_exclude_each_other_in_one_source_only() {
    let (_dir, path) = file_with("from-file");
    let inline = Sources::default().with_environment([("APP_SERVER__PASSWORD", "inline")]);
    let both = inline.clone().with_environment([("APP_SERVER__PASSWORD_FILE", &path)]);
    assert!(error(&both).contains("expected only one of them"));

    let flag_wins = load(&inline.with_flag("server.password_file", path.to_str().unwrap()));
    let secret = flag_wins.server.password.unwrap().load().unwrap();
    assert_eq!(secret.expose_secret(), "from-file");
}

#[test]
fn a_secret_has_no_flag_unless_it_is_a_url() {
    assert!(error(&with("server.password", "hush")).ends_with("no such flag"));
    load(&with("server.webhook", "https://example.com/"));
    let keys: Vec<_> = flags(&TABLE).into_iter().map(|flag| flag.key).collect();
    for (key, expected) in [
        ("server.password", false),
        ("server.password_file", true),
        ("server.webhook", true),
        ("server.webhook_file", true),
    ] {
        assert_eq!(keys.contains(&key), expected, "{key}");
    }
}

#[test]
fn a_path_secret_consists_of_16_url_safe_characters_or_more() {
    let path_secret = |value: &str| {
        let sources = Sources::default().with_environment([("APP_SERVER__PATH_SECRET", value)]);
        TestConfig::load(&sources).is_ok()
    };
    assert!(path_secret("0123456789-_.~aZ"));
    assert!(!path_secret("0123456789-_.~a"));
    assert!(!path_secret("0123456789-_.~a/"));
}

// === Output ===

#[test]
fn shown_settings_load_to_the_same_settings() {
    let sources = with("server.max_age", "1h 30m")
        .with_flag("storage.seed", "18446744073709551615")
        .with_flag("storage.failure_rate", "0.25")
        .with_flag("server.networks", "192.0.2.0/24,::1");
    let shown = load(&sources).to_toml();
    assert!(shown.contains("max_age = \"90m\" # from --server.max_age"), "{shown}");
    assert!(shown.contains("dir = \"./data\" # default"), "{shown}");

    let (_dir, path) = file_with(&shown);
    let again = load(&with_file(&path)).to_toml();
    let values = |text: &str| -> Vec<_> {
        text.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&shown));
}

#[test]
fn flags_documentation_and_schema_describe_every_setting() {
    let flags = flags(&TABLE);
    let listen = flags.iter().find(|flag| flag.key == "server.listen");
    assert_eq!(
        listen.unwrap().help,
        "Address of the server. [default: 0.0.0.0:80] [env: APP_SERVER__LISTEN]"
    );
    let switches: Vec<_> = flags.iter().filter(|flag| flag.is_switch).collect();
    assert_eq!(switches.len(), 1);

    let text = markdown_tables(&TABLE);
    assert!(
        text.contains(
            "| `server.listen` | `0.0.0.0:80` | Address of the server. Port 0 selects a free port. \
             Valid values: an IP address"
        ),
        "{text}"
    );
    assert!(text.contains("| `server.password` or `server.password_file` | not set |"));

    let schema: serde_json::Value = serde_json::from_str(&json_schema(&TABLE, "Test")).unwrap();
    let storage = &schema["properties"]["storage"]["properties"];
    assert_eq!(storage["engine"]["enum"].as_array().unwrap().len(), 2);
    assert_eq!(storage["failure_rate"]["maximum"].to_string(), "1");
    let server = &schema["properties"]["server"]["properties"];
    assert_eq!(server["password_file"]["type"], "string");
    assert_eq!(server["networks"]["type"], "array");
}
