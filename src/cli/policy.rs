//! `policy`: checks, explains and documents the policy file.

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::PossibleValuesParser};

use crate::{
    access::policy::{Permission, Policy, Question, json_schema},
    cli::{exit::ExitError, output::print_line, settings_args::SettingsArgs},
    domain::newtypes::AccountName,
    operations,
};

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyCommand {
    #[command(subcommand)]
    command: PolicySubcommand,
}

#[derive(Debug, Subcommand)]
enum PolicySubcommand {
    /// Validate a policy file; exit code 78 with all errors if it is invalid
    Check(Check),
    /// Show the caller of an identity and its permission; exit code 1 if it is denied
    Explain(Explain),
    /// Print a JSON Schema of the policy file
    Schema,
}

#[derive(Debug, Args)]
struct Check {
    /// The policy file. Default: `auth.policy_file`
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct Explain {
    /// The policy file
    file: PathBuf,
    /// A name of the identity, such as `jwt:fleet-service`. Repeat it for each name
    #[arg(long = "identity", value_name = "NAME", required = true)]
    identities: Vec<String>,
    /// An account
    #[arg(long, value_parser = parse_account)]
    account: Option<AccountName>,
    /// A permission. Default: show all that the caller may do
    #[arg(long, value_parser = PossibleValuesParser::new(Permission::ALL.map(Permission::as_str)))]
    permission: Option<String>,
    /// An operation, for the permission `change`
    #[arg(long, requires = "permission", value_parser = PossibleValuesParser::new(operations::all().map(|info| info.change_type.as_str())))]
    operation: Option<String>,
}

// === impl PolicyCommand ===

impl PolicyCommand {
    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// Exit code 78: invalid settings, or an invalid policy file. Exit code 1: `explain` says that the
    /// identity is denied.
    pub fn run(self) -> Result<(), ExitError> {
        match self.command {
            PolicySubcommand::Check(check) => check.run(),
            PolicySubcommand::Explain(explain) => explain.run(),
            PolicySubcommand::Schema => Ok(print_line(&json_schema())?),
        }
    }
}

impl Check {
    fn run(self) -> Result<(), ExitError> {
        let config = self.settings.load()?.config;
        let Some(path) = self.file.as_ref().or(config.auth.policy_file.as_ref()) else {
            let problem = "no policy file, expected its path as an argument, or auth.policy_file";
            return Err(ExitError::settings(problem));
        };
        let policy = Policy::load(path).map_err(ExitError::settings)?;
        print_line(&format!("the policy is valid (callers: {})", policy.callers().len()))?;
        let has_settings = config.set_keys().next().is_some();
        let changes_per_minute = has_settings.then_some(config.thingspace.changes_per_minute);
        for warning in policy.warnings(changes_per_minute) {
            print_line(&format!("warning: {warning}"))?;
        }
        Ok(())
    }
}

impl Explain {
    fn run(self) -> Result<(), ExitError> {
        let policy = Policy::load(&self.file).map_err(ExitError::settings)?;
        let operation = self.operation.and_then(|name| {
            let mut types = operations::all().map(|info| info.change_type);
            types.find(|change_type| change_type.as_str() == name)
        });
        let explanation = policy.explain(&Question {
            identities: self.identities,
            permission: self.permission.as_deref().and_then(Permission::parse),
            account: self.account,
            operation,
        });
        print_line(&explanation.to_string())?;
        if explanation.is_allowed { Ok(()) } else { Err(ExitError::silent()) }
    }
}

fn parse_account(text: &str) -> Result<AccountName, String> {
    AccountName::parse(text).map_err(|error| error.expected.to_owned())
}
