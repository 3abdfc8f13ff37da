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

impl Config {
    /// Applies the defaults that differ in this mode.
    pub fn apply_mode_defaults(&mut self, mode: Mode) {
        if mode != Mode::ServeSandbox {
            return;
        }
        if !self.is_set("callbacks.listen") {
            self.callbacks.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        }
        if !self.is_set("thingspace.changes_per_minute") {
            self.thingspace.changes_per_minute = SANDBOX_CHANGES_PER_MINUTE;
        }
    }
}
