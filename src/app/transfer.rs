//! Exports, backs up, imports, restores and checks the journal of the settings.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write, stdin, stdout},
    path::Path,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};

use crate::{
    app::{SystemClock, failed_logins},
    config::{Config, JournalEngine, Mode, RequiredDurability},
    dispatch,
    domain::clock::Clock,
    journal::{
        CheckReport, Origin,
        postgres::transfer::{self as postgres, TransferDatabase},
        sqlite::transfer as sqlite,
        transfer::{
            ExportReport, FileHeader, FileReport, ImportReport, Purpose, TimeLimit, TransferError,
            ValueUpdate, verify,
        },
    },
};

/// The name of standard input and output.
const STANDARD_STREAM: &str = "-";
/// Size of the buffer of a file.
const BUFFER: usize = 256 * 1024;
/// The bytes that a pipe takes without blocking once it is ready for a write (PIPE_BUF of Linux).
const PIPE_CHUNK: usize = 4096;

/// Standard output. A write fails, instead of blocking, if nothing reads it until the time limit.
struct LimitedStdout(TimeLimit);

/// Exports the journal to a new file that only its owner can read, or to standard output.
///
/// # Errors
///
/// Fails if the journal cannot be read, or if the file exists or cannot be written.
pub fn export_journal(config: &Config, path: &Path) -> Result<ExportReport, TransferError> {
    if path.as_os_str() == STANDARD_STREAM {
        return export(config, &mut BufWriter::with_capacity(BUFFER, stdout().lock()));
    }
    write_new_file(path, |output| export(config, output))
}

/// Backs up the journal, which a gateway may use, to a new file that only its owner can read, or to standard output.
///
/// # Errors
///
/// Fails if the journal cannot be read, if the file exists or cannot be written, or if the backup takes longer than
/// `time_limit`.
pub fn back_up_journal(
    config: &Config,
    path: &Path,
    time_limit: Duration,
) -> Result<ExportReport, TransferError> {
    let limit = TimeLimit::start(time_limit);
    if path.as_os_str() == STANDARD_STREAM {
        return back_up(config, limit, &mut BufWriter::with_capacity(BUFFER, LimitedStdout(limit)));
    }
    write_new_file(path, |output| back_up(config, limit, output))
}

/// Imports a file, or standard input, into an empty journal.
///
/// # Errors
///
/// Fails if the file is damaged, is a backup, or belongs to another ThingSpace, if the journal has data, or if a gateway
/// uses it.
pub fn import_journal(
    config: &Config,
    mode: Mode,
    path: &Path,
) -> Result<ImportReport, TransferError> {
    read_file(path, |input| import(config, mode, Purpose::Move, input))
}

/// Fills an empty journal from a backup or an export whose journal was lost, or from standard input. The journal gets a
/// new epoch, and the changes of all accounts are paused until an operator resumes them. One refused log-in is assumed.
///
/// # Errors
///
/// Fails if the file is damaged or belongs to another ThingSpace, if the journal has data, or if a gateway uses it.
pub fn restore_journal(
    config: &Config,
    mode: Mode,
    path: &Path,
) -> Result<ImportReport, TransferError> {
    let now = SystemClock.now();
    let pause = |header: &FileHeader, stored: &[u8]| dispatch::pause_restored(header, stored, now);
    let assume = |_: &FileHeader, _: &[u8]| Ok(failed_logins::AFTER_RESTORE.to_vec());
    let updates = [
        ValueUpdate { name: dispatch::PAUSES, update: &pause },
        ValueUpdate { name: failed_logins::RESTORED, update: &assume },
    ];
    read_file(path, |input| import(config, mode, Purpose::Restore(&updates), input))
}

/// Checks the journal, which a gateway may use.
///
/// # Errors
///
/// Fails if there is no journal, if it cannot be read, or if the check takes longer than `time_limit`.
pub fn check_journal(config: &Config, time_limit: Duration) -> Result<CheckReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => {
            let runtime = runtime()?;
            let _context = runtime.enter();
            postgres::check(&database)
        }
        None => {
            let limit = TimeLimit::start(time_limit);
            sqlite::check(&journal.dir, journal.allow_network_filesystem, limit)
        }
    }
}

/// Checks a backup or an export, or standard input.
///
/// # Errors
///
/// Fails if the file is damaged or incomplete, or cannot be read.
pub fn check_journal_file(path: &Path) -> Result<FileReport, TransferError> {
    read_file(path, verify)
}

/// Prepares the database of the settings for an import or a restore: no gateway opens it before. Returns false for an
/// embedded journal.
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

/// Creates a file with mode 0600 once `write` has succeeded. Replaces no other file.
fn write_new_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<ExportReport, TransferError>,
) -> Result<ExportReport, TransferError> {
    // Nothing is written in vain.
    if path.exists() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists").into());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".journal-export-").tempfile_in(parent)?;
    let mut output = BufWriter::with_capacity(BUFFER, file);
    let report = write(&mut output)?;
    let file: NamedTempFile = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()?;
    Ok(report)
}

fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&mut dyn Read) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    if path.as_os_str() == STANDARD_STREAM {
        return read(&mut stdin().lock());
    }
    read(&mut BufReader::with_capacity(BUFFER, File::open(path)?))
}

fn export(config: &Config, output: &mut dyn Write) -> Result<ExportReport, TransferError> {
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

fn back_up(
    config: &Config,
    limit: TimeLimit,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => {
            let runtime = runtime()?;
            let _context = runtime.enter();
            postgres::back_up(&database, &SystemClock, limit, output)
        }
        None => {
            let (dir, allow_network) = (&journal.dir, journal.allow_network_filesystem);
            sqlite::back_up(dir, allow_network, &SystemClock, limit, output)
        }
    }
}

fn import(
    config: &Config,
    mode: Mode,
    purpose: Purpose<'_>,
    input: &mut dyn Read,
) -> Result<ImportReport, TransferError> {
    let origin = match mode {
        Mode::ServeSandbox => Origin::sandbox(),
        Mode::Serve | Mode::Sandbox => Origin::from_url(&config.thingspace.base_url),
    };
    let journal = &config.journal;
    match database(config) {
        Some(database) => {
            let runtime = runtime()?;
            let _context = runtime.enter();
            postgres::import(&database, &origin, purpose, input)
        }
        None => {
            let (dir, allow_network) = (&journal.dir, journal.allow_network_filesystem);
            sqlite::import(dir, allow_network, &origin, purpose, input)
        }
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

impl Write for LimitedStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = stdout();
        loop {
            let remaining = self.0.remaining()?;
            let timeout = Timespec::try_from(remaining).map_err(io::Error::other)?;
            let mut ready = [PollFd::new(&stdout, PollFlags::OUT)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let chunk = bytes.get(..PIPE_CHUNK).unwrap_or(bytes);
        // The buffer of `Stdout` would keep the chunk.
        Ok(rustix::io::write(&stdout, chunk)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
