//! The rules for several settings. The documentation lists them from the same table.

use thingspace_loopback::{is_loopback_ip, is_loopback_url};
use thingspace_settings::{Choice as _, ConfigError, format_duration};

use crate::config::{
    mode::Mode,
    settings::{AuditOutput, AuthMode, Config, JournalEngine, RegisterPolicy},
    warnings::warnings,
};

/// A rule for several settings.
pub(super) struct Rule {
    /// The rule, in Markdown.
    pub(super) doc: &'static str,
    /// The modes that the rule applies to.
    pub(super) modes: &'static [Mode],
    check: fn(&Config) -> Option<Violation>,
}

/// Key of a setting that breaks a rule, and the problem.
type Violation = (&'static str, String);

const SERVE: &[Mode] = &[Mode::Serve];
const SERVE_SANDBOX: &[Mode] = &[Mode::ServeSandbox];
const GATEWAY: &[Mode] = &[Mode::Serve, Mode::ServeSandbox];

/// All rules. None applies to [`Mode::Sandbox`], which ignores the gateway's settings: both may use
/// the same file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        doc: "`thingspace.app_key`, `thingspace.app_secret`, `thingspace.uws_username` and \
              `thingspace.uws_password` must be set",
        modes: SERVE,
        check: |config| {
            let key = CREDENTIALS.into_iter().find(|key| !config.is_set(key))?;
            let problem = format!(
                "not set, expected it or {key}_file (`serve --sandbox` runs without credentials)"
            );
            Some((key, problem))
        },
    },
    Rule {
        doc: "these four settings and `thingspace.base_url` must not be set",
        modes: SERVE_SANDBOX,
        check: |config| {
            let mut keys = CREDENTIALS.into_iter().chain(["thingspace.base_url"]);
            let key = keys.find(|key| config.is_set(key))?;
            let problem =
                "set, expected unset with `serve --sandbox`, which calls only its own sandbox";
            Some((key, problem.to_owned()))
        },
    },
    Rule {
        doc: "`callbacks.username` and `callbacks.password` must both be set, or neither. The same \
              applies to `callbacks.previous_username` and `callbacks.previous_password`, which also \
              need the current credentials, to `callbacks.tls_cert_file` and `callbacks.tls_key_file`, \
              and to `grpc.tls_cert_file` and `grpc.tls_key_file`",
        modes: GATEWAY,
        check: check_pairs,
    },
    Rule {
        doc: "`grpc.tls_client_ca_file` needs `grpc.tls_cert_file`",
        modes: GATEWAY,
        check: |config| {
            let grpc = &config.grpc;
            (grpc.tls_client_ca_file.is_some() && grpc.tls_cert_file.is_none()).then(|| {
                let problem = "set without grpc.tls_cert_file, expected the certificate of the gRPC \
                               port with it";
                ("grpc.tls_client_ca_file", problem.to_owned())
            })
        },
    },
    Rule {
        doc: "if `callbacks.listen` is not a loopback address, `callbacks.path_secret` or \
              `callbacks.password` must be set, or `callbacks.insecure` must be `true`",
        modes: SERVE,
        check: |config| {
            let listen = config.callbacks.listen;
            (is_unprotected(config) && !is_loopback_ip(listen.ip())).then(|| {
                let problem = format!(
                    "got {listen}, which other hosts can reach, expected callbacks.path_secret or \
                     callbacks.password with it, or callbacks.insecure = true"
                );
                ("callbacks.listen", problem)
            })
        },
    },
    Rule {
        doc: "`callbacks.register` other than `never` needs `callbacks.public_url` and \
              `thingspace.accounts`",
        modes: GATEWAY,
        check: |config| {
            let missing = |key, expected| missing_for_register(config, key, expected);
            if config.callbacks.public_url.is_none() {
                missing("callbacks.public_url", "the URL to register")
            } else if config.thingspace.accounts.is_empty() {
                missing("thingspace.accounts", "the accounts to register it for")
            } else {
                None
            }
        },
    },
    Rule {
        doc: "`callbacks.register` other than `never` also needs `callbacks.path_secret` or \
              `callbacks.password`, or `callbacks.insecure = true`",
        modes: SERVE,
        check: |config| {
            let expected = "it, callbacks.password or callbacks.insecure = true";
            missing_for_register(config, "callbacks.path_secret", expected)
                .filter(|_| is_unprotected(config))
        },
    },
    Rule {
        doc: "`auth.mode` must be set if `thingspace.base_url` is at thingspace.verizon.com and \
              `grpc.listen` or `console.listen` is not a loopback address",
        modes: SERVE,
        check: |config| {
            if !config.thingspace.is_production() || config.auth.mode.is_some() {
                return None;
            }
            let console = config.console.listen.filter(|listen| !is_loopback_ip(listen.ip()));
            let grpc = config.grpc.listen;
            if !is_loopback_ip(grpc.ip()) {
                let problem = format!(
                    "not set, expected `mtls`, `jwt`, `mesh` or an explicit `none`, because \
                     grpc.listen {grpc} lets every client that can reach it change real devices"
                );
                return Some(("auth.mode", problem));
            }
            console.map(|console| {
                let problem = format!(
                    "not set, expected `mtls`, `jwt`, `mesh` or an explicit `none`, because \
                     console.listen {console} shows everyone who can reach it the changes of all accounts"
                );
                ("auth.mode", problem)
            })
        },
    },
    Rule {
        doc: "`auth.mode` must not contain `none` together with other values",
        modes: GATEWAY,
        check: |config| {
            let modes = config.auth.modes();
            (modes.contains(&AuthMode::None) && modes.len() > 1).then(|| {
                let problem = "got `none` with other values, expected `none` alone or without it";
                ("auth.mode", problem.to_owned())
            })
        },
    },
    Rule {
        doc: "`auth.mode` with `mtls` needs `grpc.tls_client_ca_file`",
        modes: GATEWAY,
        check: |config| {
            let expected = "the authorities that sign client certificates";
            missing_for_mode(config, AuthMode::Mtls, "grpc.tls_client_ca_file", expected)
        },
    },
    Rule {
        doc: "`auth.mode` with `jwt` needs `auth.jwt_issuer`, `auth.jwt_audience`, and either \
              `auth.jwt_jwks_file` or `auth.jwt_jwks_url`",
        modes: GATEWAY,
        check: check_jwt,
    },
    Rule {
        doc: "`auth.jwt_jwks_url` must be `https`, or `http` to a loopback address",
        modes: GATEWAY,
        check: |config| {
            let url = config.auth.jwt_jwks_url.as_ref()?;
            (url.scheme() != "https" && !is_loopback_url(url)).then(|| {
                let problem = format!(
                    "got {url}, expected `https`: an attacker who replaces the keys on the \
                     network can impersonate any caller"
                );
                ("auth.jwt_jwks_url", problem)
            })
        },
    },
    Rule {
        doc: "`auth.mode` with `mesh` needs `auth.mesh_header` and `auth.mesh_trusted_cidrs`, which \
              must not contain all addresses",
        modes: GATEWAY,
        check: check_mesh,
    },
    Rule {
        doc: "`auth.policy_file` must be set if `auth.mode` is set and is not `none`, and only then",
        modes: GATEWAY,
        check: |config| {
            let problem = match (config.auth.authenticates(), &config.auth.policy_file) {
                (true, None) => "not set, expected it with an auth.mode other than none",
                (false, Some(_)) => "set, expected unset, or an auth.mode other than none with it",
                (true, Some(_)) | (false, None) => return None,
            };
            Some(("auth.policy_file", problem.to_owned()))
        },
    },
    Rule {
        doc: "`grpc.max_stream_age` must be less than `grpc.max_connection_age`",
        modes: GATEWAY,
        check: |config| {
            let (age, max) = (config.grpc.max_stream_age, config.grpc.max_connection_age);
            (age >= max).then(|| {
                let (age, max) = (format_duration(age), format_duration(max));
                let problem =
                    format!("got {age}, expected less than grpc.max_connection_age ({max})");
                ("grpc.max_stream_age", problem)
            })
        },
    },
    Rule {
        doc: "`limits.devices` must be at least `changes.max_devices_per_request`",
        modes: GATEWAY,
        check: |config| {
            let min = usize::try_from(config.changes.max_devices_per_request).unwrap_or(usize::MAX);
            let limit = ("limits.devices", config.limits.devices);
            check_at_least(limit, ("changes.max_devices_per_request", min))
        },
    },
    Rule {
        doc: "`limits.message_bytes` must be at least `grpc.max_message_bytes`",
        modes: GATEWAY,
        check: |config| {
            let limit = ("limits.message_bytes", config.limits.message_bytes);
            check_at_least(limit, ("grpc.max_message_bytes", config.grpc.max_message_bytes))
        },
    },
    Rule {
        doc: "`journal.spool_dir` must differ from `journal.dir`",
        modes: GATEWAY,
        check: |config| {
            let spool = config.journal.spool_dir.as_ref()?;
            (*spool == config.journal.dir).then(|| {
                let problem =
                    format!("got {}, expected another directory than journal.dir", spool.display());
                ("journal.spool_dir", problem)
            })
        },
    },
    Rule {
        doc: "`journal.retention` must be at least `changes.close_after`",
        modes: GATEWAY,
        check: |config| {
            let (retention, min) = (config.journal.retention, config.changes.close_after);
            (retention < min).then(|| {
                let problem = format!(
                    "got {}, expected at least changes.close_after ({}): the idempotency key of a \
                     change must not expire before the change is closed",
                    format_duration(retention),
                    format_duration(min)
                );
                ("journal.retention", problem)
            })
        },
    },
    Rule {
        doc: "`audit.file`, `audit.max_bytes` and `audit.max_files` need `audit.output = file`",
        modes: GATEWAY,
        check: |config| {
            let output = config.audit.output;
            let keys = ["audit.file", "audit.max_bytes", "audit.max_files"];
            let key = keys.into_iter().find(|key| config.is_set(key))?;
            (output != AuditOutput::File).then(|| {
                let output = output.name();
                (key, format!("set with audit.output = {output}, expected audit.output = file"))
            })
        },
    },
    Rule {
        doc: "`journal.url` must be set if `journal.engine` is `postgres`, and only then",
        modes: GATEWAY,
        check: check_journal_url,
    },
];

const CREDENTIALS: [&str; 4] = [
    "thingspace.app_key",
    "thingspace.app_secret",
    "thingspace.uws_username",
    "thingspace.uws_password",
];

const PAIRS: [(&str, &str); 4] = [
    ("callbacks.username", "callbacks.password"),
    ("callbacks.previous_username", "callbacks.previous_password"),
    ("callbacks.tls_cert_file", "callbacks.tls_key_file"),
    ("grpc.tls_cert_file", "grpc.tls_key_file"),
];

impl Config {
    /// Applies the defaults of the mode and checks the combinations of settings. Returns warnings,
    /// one line each.
    ///
    /// # Errors
    ///
    /// The first rule that the settings break.
    pub fn check_for(&mut self, mode: Mode) -> Result<Vec<String>, ConfigError> {
        self.apply_mode_defaults(mode);
        let mut rules = RULES.iter().filter(|rule| rule.modes.contains(&mode));
        match rules.find_map(|rule| (rule.check)(self)) {
            Some((key, problem)) => Err(self.error(key, &problem)),
            None => warnings(self, mode),
        }
    }

    /// Checks the combinations of settings that select the journal, for commands that need only that.
    ///
    /// # Errors
    ///
    /// The first combination that is not allowed.
    pub fn check_journal(&self) -> Result<(), ConfigError> {
        match check_journal_url(self) {
            Some((key, problem)) => Err(self.error(key, &problem)),
            None => Ok(()),
        }
    }
}

fn check_journal_url(config: &Config) -> Option<Violation> {
    let journal = &config.journal;
    let problem = match (journal.engine, &journal.url) {
        (JournalEngine::Postgres, None) => {
            "not set, expected it or journal.url_file with journal.engine = postgres"
        }
        (JournalEngine::Sqlite, Some(_)) => {
            "set, expected unset, or journal.engine = postgres with it"
        }
        _ => return None,
    };
    Some(("journal.url", problem.to_owned()))
}

/// The violation that `key` is not set, if `auth.mode` contains `mode`, which needs it.
fn missing_for_mode(
    config: &Config,
    mode: AuthMode,
    key: &'static str,
    expected: &str,
) -> Option<Violation> {
    (config.auth.accepts(mode) && !config.is_set(key)).then(|| {
        let mode = mode.name();
        (key, format!("not set, expected {expected} with auth.mode = {mode}"))
    })
}

fn check_jwt(config: &Config) -> Option<Violation> {
    let missing = |key, expected| missing_for_mode(config, AuthMode::Jwt, key, expected);
    if config.is_set("auth.jwt_jwks_file") && config.is_set("auth.jwt_jwks_url") {
        let problem = "set together with auth.jwt_jwks_file, expected only one of them";
        return Some(("auth.jwt_jwks_url", problem.to_owned()));
    }
    missing("auth.jwt_issuer", "the issuer of the tokens")
        .or_else(|| missing("auth.jwt_audience", "the audience of the tokens"))
        .or_else(|| missing("auth.jwt_jwks_file", "it or auth.jwt_jwks_url"))
        .filter(|(key, _)| *key != "auth.jwt_jwks_file" || !config.is_set("auth.jwt_jwks_url"))
}

fn check_mesh(config: &Config) -> Option<Violation> {
    const NETWORKS: &str = "auth.mesh_trusted_cidrs";
    let missing = |key, expected| missing_for_mode(config, AuthMode::Mesh, key, expected);
    let networks = &config.auth.mesh_trusted_cidrs;
    if networks.iter().any(|network| network.prefix_len() == 0) {
        let problem = "got a network of all addresses, expected those of the mesh's proxies";
        return Some((NETWORKS, problem.to_owned()));
    }
    missing("auth.mesh_header", "the header of the mesh").or_else(|| {
        let is_missing = config.auth.accepts(AuthMode::Mesh) && networks.is_empty();
        let problem = "empty, expected the networks of the mesh's proxies with auth.mode = mesh";
        is_missing.then(|| (NETWORKS, problem.to_owned()))
    })
}

fn check_pairs(config: &Config) -> Option<Violation> {
    for (one, other) in PAIRS {
        let (set, missing) = match (config.is_set(one), config.is_set(other)) {
            (true, false) => (one, other),
            (false, true) => (other, one),
            _ => continue,
        };
        return Some((set, format!("set without {missing}, expected both or neither")));
    }
    let callbacks = &config.callbacks;
    (callbacks.previous_username.is_some() && callbacks.username.is_none()).then(|| {
        let problem = "set without callbacks.username, expected the current credentials too";
        ("callbacks.previous_username", problem.to_owned())
    })
}

/// True if callbacks need neither path secret nor password, and no setting permits it.
fn is_unprotected(config: &Config) -> bool {
    let callbacks = &config.callbacks;
    callbacks.path_secret.is_none() && callbacks.password.is_none() && !callbacks.insecure
}

/// The violation that `key` is not set, if `callbacks.register` needs it.
fn missing_for_register(config: &Config, key: &'static str, expected: &str) -> Option<Violation> {
    let policy = config.callbacks.register;
    (policy != RegisterPolicy::Never).then(|| {
        let policy = policy.name();
        (key, format!("not set, expected {expected} with callbacks.register = {policy}"))
    })
}

/// Checks that a limit admits the largest single call.
fn check_at_least(
    (key, limit): (&'static str, usize),
    (other, min): (&str, usize),
) -> Option<Violation> {
    (limit < min).then(|| (key, format!("got {limit}, expected at least {other} ({min})")))
}
