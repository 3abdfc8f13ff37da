//! The rules for several settings. The documentation lists them from the same table.

use thingspace_loopback::is_loopback_ip;
use thingspace_settings::{Choice as _, ConfigError, format_duration};

use crate::config::{
    mode::Mode,
    settings::{AuditOutput, Config, JournalEngine, RegisterPolicy},
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
              need the current credentials, and to `callbacks.tls_cert_file` and \
              `callbacks.tls_key_file`",
        modes: GATEWAY,
        check: check_pairs,
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
              `grpc.listen` is not a loopback address",
        modes: SERVE,
        check: |config| {
            let listen = config.grpc.listen;
            let is_open = config.thingspace.is_production() && !is_loopback_ip(listen.ip());
            (is_open && config.auth.mode.is_none()).then(|| {
                let problem = format!(
                    "not set, expected an explicit `none`, because grpc.listen {listen} lets every \
                     client that can reach it change real devices"
                );
                ("auth.mode", problem)
            })
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

const PAIRS: [(&str, &str); 3] = [
    ("callbacks.username", "callbacks.password"),
    ("callbacks.previous_username", "callbacks.previous_password"),
    ("callbacks.tls_cert_file", "callbacks.tls_key_file"),
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
