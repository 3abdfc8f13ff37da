//! Typed, validated, documented settings.
//!
//! `settings` holds one table that describes every key once; the struct [`Config`], the names of
//! flags and environment variables, the check of the file, `config show` and `docs/settings.md` all
//! derive from it. [`Config::load`] reads the [`Sources`]; [`Config::check_for`] then judges what no
//! single key can tell.
//!
//! This room touches neither the process environment nor its arguments: both are handed in, so that
//! a test owns them.

mod check;
mod choices;
mod docs;
mod error;
mod file;
mod kind;
mod list;
mod load;
mod nearest;
mod schema;
mod secret;
mod settings;
mod show;
mod table;
#[cfg(test)]
mod tests;

pub use check::Mode;
pub use choices::{
    AllowMode, AuthMode, CallbackOrder, FiveGBiHttpMethod, JournalEngine, LogFormat, OtlpProtocol,
    RegisterPolicy, ResendPolicy,
};
pub use docs::markdown;
pub use error::{ConfigError, SettingOrigin};
pub use load::{LoadedConfig, Sources};
pub use schema::json_schema;
pub use secret::{Secret, SecretError};
pub use settings::{
    AdminConfig, AuthConfig, CallbacksConfig, ChangesConfig, Config, GrpcConfig, JournalConfig,
    SandboxConfig, ShutdownConfig, TelemetryConfig, ThingSpaceConfig,
};
pub use show::render_toml;
pub use table::{Flag, flags};

/// What every name of an environment variable of this program begins with.
pub const ENV_PREFIX: &str = "TSGW_";

/// The environment variable that names the settings file, as `--config` does.
pub const ENV_CONFIG_FILE: &str = "TSGW_CONFIG";

/// The exit code of a start that its settings stopped (`EX_CONFIG` of sysexits).
pub const EXIT_CODE: u8 = 78;
