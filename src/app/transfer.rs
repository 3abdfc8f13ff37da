//! Exports and imports the journal of the settings.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, stdin, stdout},
    path::Path,
};

use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};

use crate::{
    config::{Config, JournalEngine, Mode, RequiredDurability},
    journal::{
        Origin,
        postgres::transfer::{self as postgres, TransferDatabase},
        sqlite::transfer as sqlite,
        transfer::{ExportReport, ImportReport, TransferError},
    },
};

/// The name of standard input and output.
const STANDARD_STREAM: &str = "-";
/// Size of the buffer of a file.
const BUFFER: usize = 256 * 1024;

/// Exports the journal to a new file that only its owner can read, or to standard output.
///
/// # Errors
///
/// Fails if the journal cannot be read, or if the file exists or cannot be written.
pub fn export_journal(config: &Config, path: &Path) -> Result<ExportReport, TransferError> {
    if path.as_os_str() == STANDARD_STREAM {
        return export(config, &mut BufWriter::with_capacity(BUFFER, stdout().lock()));
    }
    // Nothing is exported in vain. The file is created at the end, and then replaces no other one.
    if path.exists() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists").into());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".journal-export-").tempfile_in(parent)?;
    let mut output = BufWriter::with_capacity(BUFFER, file);
    let report = export(config, &mut output)?;
    let file: NamedTempFile = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()?;
    Ok(report)
}

/// Imports a file, or standard input, into an empty journal.
///
/// # Errors
///
/// Fails if the file is damaged or belongs to another ThingSpace, if the journal has data, or if a gateway uses it.
pub fn import_journal(
    config: &Config,
    mode: Mode,
    path: &Path,
) -> Result<ImportReport, TransferError> {
    let origin = match mode {
        Mode::ServeSandbox => Origin::sandbox(),
        Mode::Serve | Mode::Sandbox => Origin::from_url(&config.thingspace.base_url),
    };
    if path.as_os_str() == STANDARD_STREAM {
        return import(config, &origin, &mut stdin().lock());
    }
    import(config, &origin, &mut BufReader::with_capacity(BUFFER, File::open(path)?))
}

/// Prepares the database of the settings for an import: no gateway opens it before. Returns false for an embedded
/// journal.
///
/// # Errors
///
/// Fails if the journal has data, or if a gateway uses it.
pub fn prepare_import(config: &Config) -> Result<bool, TransferError> {
    let Some(database) = database(config) else {
        return Ok(false);
    };
    let runtime = runtime()?;
    let _context = runtime.enter();
    postgres::prepare(&database).map(|()| true)
}

fn export(config: &Config, output: &mut dyn io::Write) -> Result<ExportReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => {
            let runtime = runtime()?;
            let _context = runtime.enter();
            postgres::export(&database, output)
        }
        None => sqlite::export(&journal.dir, journal.allow_network_filesystem, output),
    }
}

fn import(
    config: &Config,
    origin: &Origin,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => {
            let runtime = runtime()?;
            let _context = runtime.enter();
            postgres::import(&database, origin, input)
        }
        None => sqlite::import(&journal.dir, journal.allow_network_filesystem, origin, input),
    }
}

/// Returns the database of the settings; `None` for an embedded journal.
fn database(config: &Config) -> Option<TransferDatabase> {
    let journal = &config.journal;
    match (journal.engine, &journal.url) {
        (JournalEngine::Postgres, Some(url)) => Some(TransferDatabase {
            url: url.clone(),
            password: journal.password.clone(),
            allow_relaxed_durability: journal.durability == RequiredDurability::Relaxed,
        }),
        // The rules of the settings require a URL for PostgreSQL.
        (JournalEngine::Sqlite | JournalEngine::Postgres, _) => None,
    }
}

/// Drives the connection to the database.
fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}
