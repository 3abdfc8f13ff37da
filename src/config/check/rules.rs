//! The rules for several settings. The documentation lists them from the same table.

use thingspace_settings::ConfigError;

use crate::config::{
    check::{credentials, exposure, forward, limits, registration},
    mode::{Mode, apply_mode_defaults},
    settings::Config,
};

/// A rule for several settings.
pub(in crate::config) struct Rule {
    /// The rule, in Markdown.
    pub(in crate::config) doc: &'static str,
    /// The modes that the rule applies to.
    pub(in crate::config) modes: &'static [Mode],
    check: fn(&Config) -> Result<(), ConfigError>,
}

const SERVE: &[Mode] = &[Mode::Serve];
const SERVE_SANDBOX: &[Mode] = &[Mode::ServeSandbox];
const GATEWAY: &[Mode] = &[Mode::Serve, Mode::ServeSandbox];

/// All rules. None applies to [`Mode::Sandbox`], which ignores the gateway's settings: both may use
/// the same file.
pub(in crate::config) static RULES: &[Rule] = &[
    Rule {
        doc: "`thingspace.app_key`, `thingspace.app_secret`, `thingspace.uws_username` and \
              `thingspace.uws_password` must be set",
        modes: SERVE,
        check: credentials::require_credentials,
    },
    Rule {
        doc: "these four settings and `thingspace.base_url` must not be set",
        modes: SERVE_SANDBOX,
        check: credentials::reject_credentials,
    },
    Rule {
        doc: "`callbacks.username` and `callbacks.password` must both be set, or neither. The same \
              applies to `callbacks.previous_username` and `callbacks.previous_password`, which also \
              need the current credentials, and to `callbacks.tls_cert_file` and \
              `callbacks.tls_key_file`",
        modes: GATEWAY,
        check: credentials::check_pairs,
    },
    Rule {
        doc: "if `callbacks.listen` is not a loopback address, `callbacks.path_secret` or \
              `callbacks.password` must be set, or `callbacks.insecure` must be `true`",
        modes: SERVE,
        check: exposure::check_callback_listener,
    },
    Rule {
        doc: "`callbacks.register` other than `never` needs `callbacks.public_url` and \
              `thingspace.accounts`",
        modes: GATEWAY,
        check: registration::check_target,
    },
    Rule {
        doc: "`callbacks.register` other than `never` also needs `callbacks.path_secret` or \
              `callbacks.password`, or `callbacks.insecure = true`",
        modes: SERVE,
        check: registration::check_secret,
    },
    Rule {
        doc: "`auth.mode` must be set if `thingspace.base_url` is at thingspace.verizon.com and \
              `grpc.listen` is not a loopback address",
        modes: SERVE,
        check: exposure::check_auth_mode,
    },
    Rule {
        doc: "`grpc.max_stream_age` must be less than `grpc.max_connection_age`",
        modes: GATEWAY,
        check: limits::check_stream_age,
    },
    Rule {
        doc: "`limits.devices` must be at least `changes.max_devices_per_request`",
        modes: GATEWAY,
        check: limits::check_devices,
    },
    Rule {
        doc: "`limits.message_bytes` must be at least `grpc.max_message_bytes`",
        modes: GATEWAY,
        check: limits::check_message_bytes,
    },
    Rule {
        doc: "`journal.retention` must be at least `changes.close_after`",
        modes: GATEWAY,
        check: limits::check_retention,
    },
];

impl Config {
    /// Applies the defaults of the mode and checks the combinations of settings. Returns warnings,
    /// one line each.
    ///
    /// # Errors
    ///
    /// The first rule that the settings break.
    pub fn check_for(&mut self, mode: Mode) -> Result<Vec<String>, ConfigError> {
        apply_mode_defaults(self, mode);
        for rule in RULES.iter().filter(|rule| rule.modes.contains(&mode)) {
            (rule.check)(self)?;
        }
        let mut warnings = Vec::new();
        if mode == Mode::Serve {
            exposure::warn(self, &mut warnings);
            limits::warn(self, &mut warnings);
        }
        if mode != Mode::Sandbox {
            credentials::warn(self, &mut warnings)?;
            registration::warn(self, mode, &mut warnings);
            forward::warn(self, &mut warnings)?;
        }
        Ok(warnings)
    }
}
