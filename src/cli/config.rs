//! `config`: checks, shows and documents the settings.

use clap::{Args, Subcommand};
use thingspace_settings::json_schema;

use crate::{
    access::policy::Policy,
    app::SystemClock,
    cli::{
        exit::ExitError,
        output::{print_error, print_line},
        settings_args::SettingsArgs,
    },
    config::{Mode, TABLE, markdown},
    domain::clock::Clock as _,
    tls::check_certificates,
};

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: ConfigSubcommand,
}

#[derive(Debug, Subcommand)]
enum ConfigSubcommand {
    /// Validate the settings, the policy file and the certificates without starting; exit code 78 if they
    /// are invalid
    Check(ModeArgs),
    /// Print the settings in effect with their sources; hides secrets
    Show(ModeArgs),
    /// Print the documentation of all settings, in Markdown
    Docs,
    /// Print a JSON Schema of the settings file
    Schema,
}

#[derive(Debug, Args)]
struct ModeArgs {
    /// Use the defaults and rules of `serve --sandbox`
    #[arg(long)]
    sandbox: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

// === impl ConfigCommand ===

impl ConfigCommand {
    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// Invalid settings, and unusable or expired certificates, with exit code 78. `show` ignores invalid
    /// combinations, so that it helps to find the cause of an error of `check`.
    pub fn run(self) -> Result<(), ExitError> {
        match self.command {
            ConfigSubcommand::Check(args) => {
                let mut loaded = args.settings.load_for(args.mode())?;
                if let Some(path) = &loaded.config.auth.policy_file {
                    let policy = Policy::load(path).map_err(ExitError::settings)?;
                    let changes_per_minute = loaded.config.thingspace.changes_per_minute;
                    loaded.warnings.extend(policy.warnings(Some(changes_per_minute)));
                }
                let certificates = check_certificates(&loaded.config, SystemClock.now())
                    .map_err(ExitError::settings)?;
                if !certificates.errors.is_empty() {
                    return Err(ExitError::settings(certificates.errors.join("\n")));
                }
                print_line("settings are valid")?;
                for fact in certificates.facts {
                    print_line(&fact)?;
                }
                for warning in loaded.warnings.into_iter().chain(certificates.warnings) {
                    print_line(&format!("warning: {warning}"))?;
                }
            }
            ConfigSubcommand::Show(args) => {
                let mut loaded = args.settings.load()?;
                loaded.config.apply_mode_defaults(args.mode());
                print_line(&loaded.config.to_toml())?;
                for warning in loaded.warnings {
                    print_error(&format!("warning: {warning}"));
                }
            }
            ConfigSubcommand::Docs => print_line(&markdown())?,
            ConfigSubcommand::Schema => {
                print_line(&json_schema(&TABLE, "Settings of thingspace-gateway"))?
            }
        }
        Ok(())
    }
}

// === impl ModeArgs ===

impl ModeArgs {
    fn mode(&self) -> Mode {
        if self.sandbox { Mode::ServeSandbox } else { Mode::Serve }
    }
}
