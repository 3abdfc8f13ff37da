//! `audit`: shows and exports the audit log.

use std::{
    io::{self, Write, stdout},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use prost_types::Timestamp as ProtoTimestamp;
use serde_json::Value;

use crate::{
    audit::{AuditLine, AuditReader, AuditTail, FIELDS, ParsedRecord},
    cli::{
        exit::ExitError,
        output::{print_error, print_line},
        settings_args::SettingsArgs,
    },
    domain::clock::Timestamp,
};

/// Interval at which `tail -f` looks for new lines.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditCommand {
    #[command(subcommand)]
    command: AuditSubcommand,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    /// Print the last records, one JSON object per line
    Tail(Tail),
    /// Print all records, or those that match all conditions
    Export(Export),
}

#[derive(Debug, Args)]
struct Tail {
    /// Also print new records until the command is stopped
    #[arg(short, long)]
    follow: bool,
    /// Number of records
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
    lines: usize,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    filter: Filter,
    /// Format of the records
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Conditions for records.
#[derive(Debug, Default, Args)]
struct Filter {
    /// Records at or after this time, such as 2026-03-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Timestamp>,
    /// Records before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Timestamp>,
    /// Records of this caller
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Records about this billing account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object per line
    Jsonl,
    /// A header and one row per record, for spreadsheets
    Csv,
}

/// Writes records in one format.
enum RecordWriter<W: Write> {
    Jsonl(W),
    Csv(Box<csv::Writer<W>>),
}

// === impl AuditCommand ===

impl AuditCommand {
    /// Runs the subcommand on the files of the settings. The gateway may be running.
    ///
    /// # Errors
    ///
    /// Exit code 1: there is no log, or it cannot be read. Exit code 78: invalid settings.
    pub fn run(self) -> Result<(), ExitError> {
        match self.command {
            AuditSubcommand::Tail(tail) => tail.run(),
            AuditSubcommand::Export(export) => export.run(),
        }
    }
}

impl Tail {
    fn run(self) -> Result<(), ExitError> {
        let path = log_path(&self.settings)?;
        let read_error = |error| failure(&path, &error);
        let (lines, mut tail) = AuditTail::open(&path, self.lines).map_err(read_error)?;
        for line in lines {
            print_record(line)?;
        }
        if !self.follow {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        loop {
            while let Some(line) = tail.next_line().map_err(read_error)? {
                print_record(line)?;
            }
            runtime.block_on(async { tokio::time::sleep(FOLLOW_INTERVAL).await });
        }
    }
}

impl Export {
    fn run(self) -> Result<(), ExitError> {
        let path = log_path(&self.settings)?;
        let read_error = |error| failure(&path, &error);
        let mut reader = AuditReader::open(&path).map_err(read_error)?;
        let mut writer = RecordWriter::new(self.format, io::BufWriter::new(stdout().lock()))?;
        let mut torn = 0_u64;
        while let Some(line) = reader.next_line().map_err(read_error)? {
            match line {
                AuditLine::Record(text, record) if self.filter.matches(&record) => {
                    writer.write(&text, &record)?;
                }
                AuditLine::Record(..) => {}
                AuditLine::Torn => torn += 1,
            }
        }
        writer.flush()?;
        if torn > 0 {
            print_error(&format!("warning: {torn} incomplete lines are left out"));
        }
        Ok(())
    }
}

// === impl Filter ===

impl Filter {
    fn matches(&self, record: &ParsedRecord) -> bool {
        let text = |field| record.get(field).and_then(Value::as_str);
        let is_value = |wanted: &Option<String>, field| {
            wanted.as_deref().is_none_or(|wanted| text(field) == Some(wanted))
        };
        let is_time = || {
            let time = text("time").and_then(|time| parse_time(time).ok());
            time.is_some_and(|time| {
                self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
            })
        };
        let has_times = self.from.is_some() || self.to.is_some();
        is_value(&self.caller, "caller")
            && is_value(&self.account, "account")
            && (!has_times || is_time())
    }
}

// === impl RecordWriter ===

impl<W: Write> RecordWriter<W> {
    fn new(format: Format, output: W) -> io::Result<Self> {
        Ok(match format {
            Format::Jsonl => Self::Jsonl(output),
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(output);
                writer.write_record(FIELDS)?;
                Self::Csv(Box::new(writer))
            }
        })
    }

    fn write(&mut self, text: &str, record: &ParsedRecord) -> io::Result<()> {
        match self {
            Self::Jsonl(output) => writeln!(output, "{text}"),
            Self::Csv(writer) => {
                let cells = FIELDS.map(|field| record.get(field).map(cell).unwrap_or_default());
                Ok(writer.write_record(cells)?)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(output) => output.flush(),
            Self::Csv(writer) => writer.flush(),
        }
    }
}

/// The text of a cell. A spreadsheet would run a text that begins like a formula, so such a text gets an apostrophe.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text }
}

fn log_path(settings: &SettingsArgs) -> Result<PathBuf, ExitError> {
    Ok(settings.load()?.config.audit_file())
}

fn print_record(line: AuditLine) -> io::Result<()> {
    match line {
        AuditLine::Record(text, _) => print_line(&text),
        AuditLine::Torn => {
            print_error("warning: an incomplete line is left out");
            Ok(())
        }
    }
}

fn failure(path: &Path, error: &io::Error) -> ExitError {
    ExitError::failure(format!("audit.file {}: {error}", path.display()))
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<ProtoTimestamp>().ok().and_then(|time| time.try_into().ok());
    time.ok_or_else(|| "expected a time such as 2026-03-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests;
