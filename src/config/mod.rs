//! The settings of this program.
//!
//! `settings` is the table of all settings: [`Config`], the flags, the environment variables, the
//! documentation and the schema are generated from it by the crate `thingspace_settings`.
//! [`Config::load`] reads [`Sources`] and checks each setting; [`Config::check_for`] checks the
//! combinations.

mod check;
mod choices;
mod docs;
mod kinds;
mod mode;
mod settings;
#[cfg(test)]
mod tests;

pub use choices::{
    AllowMode, AuthMode, CallbackOrder, FiveGBiHttpMethod, JournalEngine, LogFormat, OtlpProtocol,
    RegisterPolicy, ResendPolicy,
};
pub use docs::{flags, json_schema, markdown};
pub use mode::{Mode, render_toml};
pub use settings::{
    AdminConfig, AuthConfig, CallbacksConfig, ChangesConfig, Config, GrpcConfig, JournalConfig,
    LimitsConfig, SandboxConfig, ShutdownConfig, TABLE, TelemetryConfig, ThingSpaceConfig,
};
pub use thingspace_settings::{ConfigError, Flag, Secret, Sources};

/// Settings and the warnings about their sources.
pub type LoadedConfig = thingspace_settings::LoadedConfig<Config>;

/// Exit code for invalid settings (`EX_CONFIG` of sysexits).
pub const EXIT_CODE: u8 = 78;
