//! Typed settings from flags, environment variables and a TOML file.
//!
//! A program lists its settings once, with [`settings!`]. The macro generates the struct that holds
//! their values and a static [`Table`]. Flags, environment variables, file keys, documentation and
//! JSON Schema are derived from the table.
//!
//! A flag overrides the environment, the environment overrides the file, and the file overrides the
//! default. The crate reads neither the arguments nor the environment of the process: the program
//! passes both in [`Sources`].

mod choice;
mod docs;
mod error;
mod file;
mod flags;
mod kind;
mod macros;
mod schema;
mod secret;
mod show;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod values;

pub use choice::{AnyOf, Choice, OneOf, any_of, one_of};
pub use docs::markdown_tables;
pub use error::{ConfigError, Origins};
pub use flags::{Flag, flags};
pub use kind::{
    Description, DurationRange, FilePath, HttpUrl, Kind, ListItem, ListOf, Number, SocketAddress,
    Switch, Syntax, format_duration, list_of, toml_string,
};
pub use schema::json_schema;
pub use secret::{Secret, SecretFormat, SecretSyntax};
pub use show::render_toml;
pub use sources::{LoadedConfig, Sources};
pub use table::{Setting, SettingGroup, Table};
pub use values::{Group, Values};
