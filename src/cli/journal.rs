//! `journal`: repairs the journal of a stopped gateway.

use clap::{Args, Subcommand};
use serde_json::json;
use thingspace_settings::Secret;

use crate::{
    cli::{exit::ExitError, output::print_line, settings_args::SettingsArgs},
    config::JournalEngine,
    journal::{postgres, sqlite::accept_loss},
};

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalCommand {
    #[command(subcommand)]
    command: JournalSubcommand,
}

#[derive(Debug, Subcommand)]
enum JournalSubcommand {
    /// Accept the loss of data in a damaged journal, or in a PostgreSQL database that was restored from
    /// a backup. Open resume tokens become invalid. A retry of a lost change sends it to ThingSpace again
    AcceptLoss {
        #[command(flatten)]
        settings: SettingsArgs,
    },
}

// === impl JournalCommand ===

impl JournalCommand {
    /// Continues a damaged journal with the data that is left, and prints the lost positions as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the journal is complete or in use, or cannot be opened. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        let JournalSubcommand::AcceptLoss { settings } = self.command;
        let config = settings.load()?.config;
        if config.journal.engine == JournalEngine::Postgres {
            return accept_loss_of_database(config.journal.url, config.journal.password);
        }
        let dir = config.journal.dir;
        let accepted = accept_loss(&dir, config.journal.allow_network_filesystem);
        let Some(loss) = accepted.map_err(ExitError::failure)? else {
            let dir = dir.display();
            return Err(ExitError::failure(format!(
                "journal.dir {dir}: nothing is missing; the journal is unchanged"
            )));
        };
        let line = json!({
            "journal_dir": dir,
            "last_position": loss.database_position,
            "lost_position": loss.marker_position,
        });
        Ok(print_line(&line.to_string())?)
    }
}

/// Gives a new epoch to the journal of a database, and prints its newest position as JSON.
fn accept_loss_of_database(url: Option<Secret>, password: Option<Secret>) -> Result<(), ExitError> {
    let url = url.ok_or_else(|| {
        ExitError::settings("journal.url: not set, expected it with journal.engine = postgres")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(ExitError::failure)?;
    let accepted = runtime.block_on(postgres::accept_loss(&url, password));
    let accepted = accepted.map_err(ExitError::failure)?;
    Ok(print_line(&json!({ "last_position": accepted.last_position }).to_string())?)
}
