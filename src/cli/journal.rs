//! `journal`: backs up, checks, restores, moves and repairs a journal.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    app::{
        accept_loss, back_up_journal, check_journal, check_journal_file, export_journal,
        import_journal, journal_name, prepare_import, restore_journal,
    },
    cli::{
        args::duration_up_to,
        exit::ExitError,
        output::{print_error, print_line},
        settings_args::SettingsArgs,
    },
    config::{self, Config, JournalEngine, Mode},
    journal::{
        CheckReport, Finding,
        transfer::{FileHeader, FileKind, TransferError},
    },
    telemetry::log_warnings,
};

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct JournalCommand {
    #[command(subcommand)]
    command: JournalSubcommand,
}

#[derive(Debug, Subcommand)]
enum JournalSubcommand {
    /// Write a backup of the journal to a file, while the gateway runs or is stopped. The backup has
    /// everything that was acknowledged before the command started. Only if the backup is complete, the exit
    /// code is 0 and the last line is a JSON object: on standard output, or for - on standard error
    Backup(Backup),
    /// Fill an empty journal from a backup. Changes are paused until `changes resume`, because the
    /// backup lacks the changes that were sent after it. Open resume tokens become invalid
    Restore(Restore),
    /// Check the journal, while the gateway runs or is stopped, or a backup or export. Changes nothing.
    /// Exit code 0: the journal is sound, or the file is complete and has not changed since it was written
    Check(Check),
    /// Accept the loss of data in a damaged journal, or in a PostgreSQL database that was restored from
    /// a backup. Changes are paused until `changes resume`. Open resume tokens become invalid. Restore a backup
    /// instead if there is one
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
struct Backup {
    /// The new file, or - for standard output. It has device identifiers and results
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Maximum duration. Meanwhile, the write-ahead log of the journal grows
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration_up_to("1d"))]
    time_limit: Duration,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct Restore {
    /// The backup, or - for standard input. An export is accepted, too
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Restore a backup of a damaged journal. Use it only if there is no earlier backup
    #[arg(long)]
    allow_unsound: bool,
    /// The journal is one of `serve --sandbox`
    #[arg(long)]
    sandbox: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct Check {
    /// A backup or an export, or - for standard input. Without it, the journal of the settings is checked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Maximum duration of the check of a journal. Meanwhile, the write-ahead log of an embedded one grows
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration_up_to("1d"))]
    time_limit: Duration,
    #[command(flatten)]
    settings: SettingsArgs,
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
    /// Only reserve a PostgreSQL database for an import or a restore. Gateways that start with it wait for
    /// that, and those with a spool receive callbacks meanwhile
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
    /// Exit code 78: invalid settings, a file of another ThingSpace, or a journal that cannot be opened until the settings or
    /// the journal are changed; except for `accept-loss`, which has this code only for invalid settings. Exit code 1: any
    /// other failure, a journal that is not sound, or one of which `accept-loss` finds nothing missing.
    pub fn run(self) -> Result<(), ExitError> {
        log_warnings();
        match self.command {
            JournalSubcommand::Backup(backup) => backup.run(),
            JournalSubcommand::Restore(restore) => restore.run(),
            JournalSubcommand::Check(check) => check.run(),
            JournalSubcommand::AcceptLoss { settings } => run_accept_loss(&settings),
            JournalSubcommand::Export(export) => export.run(),
            JournalSubcommand::Import(import) => import.run(),
        }
    }
}

fn run_accept_loss(settings: &SettingsArgs) -> Result<(), ExitError> {
    let config = load(settings)?;
    let dir = config.journal.dir.display();
    let is_embedded = config.journal.engine == JournalEngine::Sqlite;
    let Some(loss) = accept_loss(&config).map_err(ExitError::failure)? else {
        return Err(ExitError::failure(format!(
            "journal.dir {dir}: nothing is missing; the journal is unchanged"
        )));
    };
    let line = if is_embedded {
        json!({
            "journal_dir": config.journal.dir,
            "last_position": loss.last_position,
            "lost_position": loss.lost_position,
            "changes_paused": true,
        })
    } else {
        json!({ "last_position": loss.last_position, "changes_paused": true })
    };
    Ok(print_line(&line.to_string())?)
}

impl Backup {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, time_limit, settings } = self;
        let config = load(&settings)?;
        let report = back_up_journal(&config, &file, time_limit);
        let journal = journal_name(&config);
        let action = format!("backup of the journal {journal} to {}", file.display());
        let report = report.map_err(|error| exit_error(&action, &error))?;
        print_summary(&file, summary(&file, Some(journal), &report.header, &report.rows))
    }
}

impl Restore {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, allow_unsound, sandbox, settings } = self;
        let config = load(&settings)?;
        let mode = if sandbox { Mode::ServeSandbox } else { Mode::Serve };
        let report = restore_journal(&config, mode, &file, allow_unsound);
        let journal = journal_name(&config);
        let action = format!("restore of {} into the journal {journal}", file.display());
        let report = report.map_err(|error| exit_error(&action, &error))?;
        let mut line = summary(&file, Some(journal), &report.header, &report.rows);
        line.insert("epoch".into(), report.epoch.into());
        line.insert("changes_paused".into(), true.into());
        Ok(print_line(&Value::from(line).to_string())?)
    }
}

impl Check {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, time_limit, settings } = self;
        let Some(file) = file else {
            let config = load(&settings)?;
            let journal = journal_name(&config);
            let report = check_journal(&config, time_limit);
            let action = format!("check of the journal {journal}");
            return print_check(journal, report.map_err(|error| exit_error(&action, &error))?);
        };
        let report = check_journal_file(&file);
        // The file causes the error, not the settings, so the exit code is that of a failure.
        let report = report
            .map_err(|error| ExitError::failure(format!("check of {}: {error}", file.display())))?;
        let mut line = summary(&file, None, &report.header, &report.rows);
        let kind = match report.header.kind {
            FileKind::Export => "export",
            FileKind::Backup { .. } => "backup",
        };
        line.insert("kind".into(), kind.into());
        line.insert("intact".into(), true.into());
        Ok(print_line(&Value::from(line).to_string())?)
    }
}

impl Export {
    fn run(self) -> Result<(), ExitError> {
        let Self { file, settings } = self;
        let config = load(&settings)?;
        let report = export_journal(&config, &file);
        let journal = journal_name(&config);
        let action = format!("export of the journal {journal} to {}", file.display());
        let report = report.map_err(|error| exit_error(&action, &error))?;
        if !report.running_gateways.is_empty() {
            print_error(&format!(
                "warning: gateways use this journal ({}). The file lacks what they store after this export",
                report.running_gateways.join(", ")
            ));
        }
        print_summary(&file, summary(&file, Some(journal), &report.header, &report.rows))
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
        let journal = journal_name(&config);
        let action = format!("import of {} into the journal {journal}", file.display());
        let report = report.map_err(|error| exit_error(&action, &error))?;
        let line = summary(&file, Some(journal), &report.header, &report.rows);
        Ok(print_line(&Value::from(line).to_string())?)
    }
}

/// Prints the summary of a file that was written, to standard error if standard output has the file.
fn print_summary(file: &Path, line: Map<String, Value>) -> Result<(), ExitError> {
    let line = Value::from(line).to_string();
    if file.as_os_str() == "-" {
        print_error(&line);
        return Ok(());
    }
    Ok(print_line(&line)?)
}

/// Prints the result of a check, and each finding as a line on standard error.
fn print_check(journal: String, report: CheckReport) -> Result<(), ExitError> {
    let findings: Vec<String> = report.findings.iter().map(describe).collect();
    findings.iter().for_each(|finding| print_error(finding));
    let count = |table: &str| report.rows.get(table).copied().unwrap_or_default();
    let line = json!({
        "journal": journal,
        "sound": findings.is_empty(),
        "in_use": report.is_in_use,
        "origin": report.origin,
        "epoch": report.epoch,
        "last_position": report.last_position,
        "changes": count("change"),
        "events": count("event"),
        "findings": findings,
    });
    print_line(&line.to_string())?;
    if findings.is_empty() { Ok(()) } else { Err(ExitError::silent()) }
}

fn describe(finding: &Finding) -> String {
    match finding.remedy {
        "" => finding.problem.clone(),
        remedy => format!("{}. {remedy}", finding.problem),
    }
}

/// Loads the settings, and prints their warnings to standard error.
fn load(settings: &SettingsArgs) -> Result<Config, ExitError> {
    let loaded = settings.load()?;
    for warning in &loaded.warnings {
        print_error(&format!("warning: {warning}"));
    }
    loaded.config.check_journal()?;
    Ok(loaded.config)
}

fn exit_error(action: &str, error: &TransferError) -> ExitError {
    let message = format!("{action}: {error}");
    if error.is_final() {
        ExitError::with_code(config::EXIT_CODE, message)
    } else {
        ExitError::failure(message)
    }
}

/// Returns the summary of a file, and of the journal that it was written from or read into.
fn summary(
    file: &Path,
    journal: Option<String>,
    header: &FileHeader,
    rows: &BTreeMap<String, u64>,
) -> Map<String, Value> {
    let count = |table: &str| rows.get(table).copied().unwrap_or_default().into();
    let mut line = Map::new();
    line.insert("file".into(), file.to_string_lossy().into());
    if let Some(journal) = journal {
        line.insert("journal".into(), journal.into());
    }
    let values: [(&str, Value); 5] = [
        ("origin", header.origin.as_str().into()),
        ("epoch", header.epoch.as_str().into()),
        ("last_position", header.last_position.into()),
        ("changes", count("change")),
        ("events", count("event")),
    ];
    line.extend(values.map(|(name, value)| (name.to_owned(), value)));
    if let FileKind::Backup { snapshot_time_us } = header.kind {
        line.insert("snapshot_time_us".into(), snapshot_time_us.into());
    }
    line
}
