//! `journal`: repairs, exports and imports the journal of a stopped gateway.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    app::{export_journal, import_journal, prepare_import},
    cli::{
        exit::ExitError,
        output::{print_error, print_line},
        settings_args::SettingsArgs,
    },
    config::{self, Config, JournalEngine, Mode},
    journal::{
        postgres,
        sqlite::accept_loss,
        transfer::{FileHeader, TransferError},
    },
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
    /// Write the whole journal to a file, to move it to another machine or engine. Stop the gateways
    /// first: an import of this file lacks what they store later
    Export(Export),
    /// Fill an empty journal from a file. Resume tokens and idempotency keys stay valid. Stop the
    /// gateways of the journal first
    Import(Import),
}

#[derive(Debug, Args)]
struct Export {
    /// The new file, or - for standard output. It has device identifiers and results
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct Import {
    /// The file of an export, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "prepare", conflicts_with = "prepare")]
    file: Option<PathBuf>,
    /// Only reserve a PostgreSQL database for an import. Gateways that start with it wait for the
    /// import, and those with a spool receive callbacks meanwhile
    #[arg(long)]
    prepare: bool,
    /// The journal is one of `serve --sandbox`
    #[arg(long)]
    sandbox: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

// === impl JournalCommand ===

impl JournalCommand {
    /// Runs the subcommand and prints its result as JSON.
    ///
    /// # Errors
    ///
    /// Exit code 1: the journal is complete, in use or not empty, or cannot be opened, or the file cannot be used. Exit
    /// code 78: invalid settings, or a journal that is damaged or belongs to another ThingSpace.
    pub fn run(self) -> Result<(), ExitError> {
        match self.command {
            JournalSubcommand::AcceptLoss { settings } => run_accept_loss(&settings),
            JournalSubcommand::Export(export) => export.run(),
            JournalSubcommand::Import(import) => import.run(),
        }
    }
}

fn run_accept_loss(settings: &SettingsArgs) -> Result<(), ExitError> {
    let config = load(settings)?;
    if let (JournalEngine::Postgres, Some(url)) = (config.journal.engine, &config.journal.url) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ExitError::failure)?;
        let accepted = runtime.block_on(postgres::accept_loss(url, config.journal.password));
        let accepted = accepted.map_err(ExitError::failure)?;
        return Ok(print_line(&json!({ "last_position": accepted.last_position }).to_string())?);
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

impl Export {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, settings } = self;
        let config = load(&settings)?;
        let report = export_journal(&config, &file);
        let report = report.map_err(|error| failure("export to", &file, &error))?;
        if !report.running_gateways.is_empty() {
            print_error(&format!(
                "warning: gateways use this journal ({}). The file lacks what they store after this export",
                report.running_gateways.join(", ")
            ));
        }
        let line = summary(&file, &report.header, &report.rows).to_string();
        if file.as_os_str() == "-" {
            print_error(&line);
            return Ok(());
        }
        Ok(print_line(&line)?)
    }
}

impl Import {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, sandbox, settings, .. } = self;
        let config = load(&settings)?;
        let Some(file) = file else {
            return match prepare_import(&config) {
                Ok(true) => Ok(()),
                Ok(false) => Err(ExitError::failure("--prepare needs journal.engine = postgres")),
                Err(error) => Err(exit_error("the preparation of an import", &error)),
            };
        };
        let mode = if sandbox { Mode::ServeSandbox } else { Mode::Serve };
        let report = import_journal(&config, mode, &file);
        let report = report.map_err(|error| failure("import of", &file, &error))?;
        Ok(print_line(&summary(&file, &report.header, &report.rows).to_string())?)
    }
}

fn load(settings: &SettingsArgs) -> Result<Config, ExitError> {
    let config = settings.load()?.config;
    config.check_journal()?;
    Ok(config)
}

fn failure(action: &str, file: &Path, error: &TransferError) -> ExitError {
    exit_error(&format!("{action} {}", file.display()), error)
}

fn exit_error(action: &str, error: &TransferError) -> ExitError {
    let message = format!("{action}: {error}");
    if error.is_final() {
        ExitError::with_code(config::EXIT_CODE, message)
    } else {
        ExitError::failure(message)
    }
}

fn summary(file: &Path, header: &FileHeader, rows: &BTreeMap<String, u64>) -> Value {
    let count = |table: &str| rows.get(table).copied().unwrap_or_default();
    json!({
        "file": file,
        "origin": header.origin,
        "epoch": header.epoch,
        "last_position": header.last_position,
        "changes": count("change"),
        "events": count("event"),
    })
}
