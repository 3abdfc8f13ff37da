//! The settings of this program.
//!
//! `settings` is the table of all settings: [`Config`], the flags, the environment variables, the
//! documentation and the schema are generated from it by the crate `thingspace_settings`.
//! [`Config::load`] reads [`Sources`] and checks each setting; [`Config::check_for`] checks the
//! combinations.

mod docs;
mod kinds;
mod mode;
mod rules;
mod settings;
#[cfg(test)]
mod tests;
mod warnings;

pub use docs::markdown;
pub use kinds::{LogFilterError, Origin, parse_log_filter};
pub use mode::Mode;
pub use settings::{
    AdminConfig, AllowMode, AuditConfig, AuditOutput, AuthConfig, AuthMode, CallbacksConfig,
    ChangesConfig, Config, FiveGBiHttpMethod, GrpcConfig, JournalConfig, JournalEngine,
    JwtAlgorithm, LimitsConfig, LogFormat, MeshHeader, OtlpProtocol, RegisterPolicy,
    RequiredDurability, ShutdownConfig, TABLE, TelemetryConfig, ThingSpaceConfig,
};
pub use thingspace_settings::{ConfigError, Secret, Sources};

/// Settings and the warnings about their sources.
pub type LoadedConfig = thingspace_settings::LoadedConfig<Config>;

/// Exit code for invalid settings (`EX_CONFIG` of sysexits).
pub const EXIT_CODE: u8 = 78;
