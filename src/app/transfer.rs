//! Exports, backs up, imports, restores, checks and repairs the journal of the settings.

use std::{
    error::Error,
    fs::File,
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write, stdin, stdout},
    path::{self, Path},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat, fsync},
};
use tokio::runtime::Builder;

use crate::{
    app::{SystemClock, failed_logins, new_file::NewFile},
    config::{Config, JournalEngine, Mode, RequiredDurability},
    dispatch,
    domain::clock::Clock,
    journal::{
        CheckReport, Origin,
        postgres::{
            accept_loss as accept_loss_on_postgres,
            transfer::{self as postgres, TransferDatabase},
        },
        sqlite::{accept_loss as accept_loss_on_sqlite, transfer as sqlite},
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

/// A file that is opened at its first read: an import reserves its journal before, also if the file is missing.
struct LazyFile<'p> {
    path: &'p Path,
    file: Option<File>,
}

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossReport {
    /// The newest position that is left.
    pub last_position: u64,
    /// The position that an embedded journal had reached, if its marker can be read.
    pub lost_position: Option<u64>,
}

/// Time for which a write to standard output waits for a reader.
const STDOUT_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Standard output. A write fails with `Interrupted`, instead of blocking, if nothing reads it for a second, so that the
/// writer can check its limits.
struct NonBlockingStdout;

/// Exports the journal to a new file that only its owner can read, or to standard output.
///
/// # Errors
///
/// Fails if the journal cannot be read, or if the file exists or cannot be written.
pub fn export_journal(config: &Config, path: &Path) -> Result<ExportReport, TransferError> {
    if path.as_os_str() == STANDARD_STREAM {
        let mut output = BufWriter::with_capacity(BUFFER, stdout().lock());
        let report = export(config, &mut output)?;
        output.flush()?;
        return sync_stdout().map(|()| report).map_err(TransferError::from);
    }
    write_new_file(path, |_, output| {
        let mut output = BufWriter::with_capacity(BUFFER, output);
        let report = export(config, &mut output)?;
        output.flush()?;
        Ok(report)
    })
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
        let report = back_up(config, limit, stdout_device(), &mut NonBlockingStdout)?;
        return sync_stdout().map(|()| report).map_err(TransferError::from);
    }
    write_new_file(path, |device, output| back_up(config, limit, device, output))
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
/// Fails if the file is damaged or belongs to another ThingSpace, if its journal was damaged, unless `allow_unsound`, if the
/// journal to fill has data, or if a gateway uses it.
pub fn restore_journal(
    config: &Config,
    mode: Mode,
    path: &Path,
    allow_unsound: bool,
) -> Result<ImportReport, TransferError> {
    let now = SystemClock.now();
    let pause = |header: &FileHeader, stored: &[u8]| dispatch::pause_restored(header, stored, now);
    let assume = |_: &FileHeader, _: &[u8]| Ok(failed_logins::ASSUMED_AFTER_LOSS.to_vec());
    let updates = [
        ValueUpdate { name: dispatch::PAUSES, update: &pause },
        ValueUpdate { name: failed_logins::ASSUMED_KEY, update: &assume },
    ];
    let purpose = Purpose::Restore { updates: &updates, allow_unsound };
    read_file(path, |input| import(config, mode, purpose, input))
}

/// Makes a working journal from the data that is left after a loss. Pauses the changes of all accounts, and assumes one
/// refused log-in, as a restore does. Returns `None` if nothing is missing in an embedded journal.
///
/// # Errors
///
/// Fails if a gateway uses the journal, or if it cannot be opened or written.
pub fn accept_loss(config: &Config) -> Result<Option<LossReport>, TransferError> {
    let now = SystemClock.now();
    let pause = |last_position: &u64, stored: &[u8]| {
        dispatch::pause_after_loss(*last_position, stored, now)
    };
    let assume = |_: &u64, _: &[u8]| Ok(failed_logins::ASSUMED_AFTER_LOSS.to_vec());
    let updates = [
        ValueUpdate { name: dispatch::PAUSES, update: &pause },
        ValueUpdate { name: failed_logins::ASSUMED_KEY, update: &assume },
    ];
    let journal = &config.journal;
    let Some(database) = database(config) else {
        let accepted =
            accept_loss_on_sqlite(&journal.dir, journal.allow_network_filesystem, &updates);
        return Ok(accepted.map_err(open_error)?.map(|loss| LossReport {
            last_position: loss.database_position,
            lost_position: loss.marker_position,
        }));
    };
    in_runtime(|| {
        let accepted = accept_loss_on_postgres(&database.url, database.password.clone(), &updates);
        let last_position = accepted.map_err(open_error)?.last_position;
        Ok(Some(LossReport { last_position, lost_position: None }))
    })
}

/// The error of a journal that cannot be opened, for a command that repairs it.
fn open_error(error: impl Error + Send + Sync + 'static) -> TransferError {
    TransferError::Open { source: Box::new(error), is_final: false }
}

/// Checks the journal, which a gateway may use.
///
/// # Errors
///
/// Fails if there is no journal, if it cannot be read, or if the check takes longer than `time_limit`.
pub fn check_journal(config: &Config, time_limit: Duration) -> Result<CheckReport, TransferError> {
    let journal = &config.journal;
    let limit = TimeLimit::start(time_limit);
    match database(config) {
        Some(database) => in_runtime(|| postgres::check(&database, limit)),
        None => sqlite::check(&journal.dir, journal.allow_network_filesystem, limit),
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

/// Names the journal of the settings without credentials: its directory, or the hosts and the name of its database.
pub fn journal_name(config: &Config) -> String {
    match database(config) {
        Some(database) => database.name(),
        None => {
            let dir = &config.journal.dir;
            path::absolute(dir).as_ref().unwrap_or(dir).display().to_string()
        }
    }
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
    in_runtime(|| postgres::prepare(&database)).map(|()| true)
}

/// Creates a file with mode 0600 once `write` has succeeded. Replaces no other file. `write` also gets the device of the
/// file.
fn write_new_file(
    path: &Path,
    write: impl FnOnce(Option<u64>, &mut dyn Write) -> Result<ExportReport, TransferError>,
) -> Result<ExportReport, TransferError> {
    let mut file = NewFile::create(path)?;
    let device = file.device()?;
    let report = write(Some(device), &mut file)?;
    file.finish()?;
    Ok(report)
}

/// Returns the device of standard output, if that is a file.
fn stdout_device() -> Option<u64> {
    let status = fstat(stdout()).ok()?;
    FileType::from_raw_mode(status.st_mode).is_file().then_some(status.st_dev)
}

/// Syncs standard output, if that is a file.
fn sync_stdout() -> io::Result<()> {
    if stdout_device().is_some() { Ok(fsync(stdout())?) } else { Ok(()) }
}

fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&mut dyn Read) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    if path.as_os_str() == STANDARD_STREAM {
        return read(&mut stdin().lock());
    }
    read(&mut BufReader::with_capacity(BUFFER, LazyFile { path, file: None }))
}

fn export(config: &Config, output: &mut dyn Write) -> Result<ExportReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => in_runtime(|| postgres::export(&database, output)),
        None => sqlite::export(&journal.dir, journal.allow_network_filesystem, output),
    }
}

fn back_up(
    config: &Config,
    limit: TimeLimit,
    output_device: Option<u64>,
    output: &mut dyn Write,
) -> Result<ExportReport, TransferError> {
    let journal = &config.journal;
    match database(config) {
        Some(database) => in_runtime(|| postgres::back_up(&database, &SystemClock, limit, output)),
        None => {
            let (dir, allow_network) = (&journal.dir, journal.allow_network_filesystem);
            sqlite::back_up(dir, allow_network, &SystemClock, limit, output_device, output)
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
        Some(database) => in_runtime(|| postgres::import(&database, &origin, purpose, input)),
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

/// Runs a command in the context of a runtime, which drives its connection to the database.
fn in_runtime<T>(command: impl FnOnce() -> Result<T, TransferError>) -> Result<T, TransferError> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _context = runtime.enter();
    command()
}

impl Read for LazyFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(self.path).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot open the file: {error}"))
            })?,
        };
        self.file.insert(file).read(buffer)
    }
}

impl Write for NonBlockingStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = stdout();
        let mut ready = [PollFd::new(&stdout, PollFlags::OUT)];
        if poll(&mut ready, Some(&STDOUT_TIMEOUT))? == 0 {
            return Err(ErrorKind::Interrupted.into());
        }
        let chunk = bytes.get(..PIPE_CHUNK).unwrap_or(bytes);
        // The buffer of `Stdout` would keep the chunk.
        Ok(rustix::io::write(&stdout, chunk)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
