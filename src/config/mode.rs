//! The commands that use settings, and the defaults that depend on them.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::settings::Config;

/// Default of `thingspace.changes_per_minute` with a sandbox, which has no rate limit of its own.
const SANDBOX_CHANGES_PER_MINUTE: u32 = 100_000;

/// The command that the settings are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `serve`: the gateway in front of ThingSpace.
    Serve,
    /// `serve --sandbox`: the gateway with a sandbox.
    ServeSandbox,
    /// `sandbox`: only a sandbox.
    Sandbox,
}

/// Formats the effective settings of the mode as a settings file. A comment names the source of each
/// value. Secrets are hidden. Without hidden secrets, the result can be loaded again.
pub fn render_toml(config: &Config, mode: Mode) -> String {
    let mut config = config.clone();
    apply_mode_defaults(&mut config, mode);
    config.to_toml()
}

/// Applies the defaults that differ in this mode.
pub(super) fn apply_mode_defaults(config: &mut Config, mode: Mode) {
    if mode != Mode::ServeSandbox {
        return;
    }
    if !config.is_set("callbacks.listen") {
        config.callbacks.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    }
    if !config.is_set("thingspace.changes_per_minute") {
        config.thingspace.changes_per_minute = SANDBOX_CHANGES_PER_MINUTE;
    }
}
