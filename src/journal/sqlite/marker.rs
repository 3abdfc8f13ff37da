//! The marker: how far the journal had come, kept outside the database.
//!
//! SQLite takes a write-ahead log that is damaged, or that belongs to no database, for an empty one:
//! what was in it is gone without an error, and a journal that has forgotten a change sends it again. So
//! a file beside the database has the journal's epoch and a position that the database is known to have
//! reached. A database that is behind it has lost something.
//!
//! The marker is written after the commit and is never ahead of what is synced. No POST leaves before
//! the marker has reached the change's DISPATCHED entry. Otherwise it follows within a second. A thread
//! of its own writes it, so that no callback waits for it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use super::{
    command::DeferredReply,
    files::{MARKER, open_private},
    fsync,
};
use crate::journal::{Epoch, JournalError};

/// A slot is written in place and alone in its disk's sector, so that a torn write leaves the other one.
const SLOT: usize = 4_096;
const SLOTS: u64 = 2;
/// The longest delay of the marker while nothing is about to be sent.
const INTERVAL: Duration = Duration::from_secs(1);
/// The first line of a slot.
const TITLE: &str = "thingspace-gateway journal marker, version 1";

/// The content of the marker: the database of this epoch has reached this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) epoch: Epoch,
    pub(super) position: u64,
}

/// The result of reading a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkerFile {
    /// No file.
    Missing,
    /// A file that cannot be read as one.
    Damaged,
    Valid(Marker),
}

/// Reads the marker of a directory.
pub(super) fn load(dir: &Path) -> io::Result<MarkerFile> {
    let Some(slots) = read_slots(dir)? else {
        return Ok(MarkerFile::Missing);
    };
    let newest = newest(slots).map(|(_, marker)| marker);
    Ok(newest.map_or(MarkerFile::Damaged, MarkerFile::Valid))
}

fn read_slots(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(MARKER)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The slot that was written last, by its number.
#[allow(
    clippy::needless_pass_by_value,
    reason = "what was read is of no other use"
)]
fn newest(slots: Vec<u8>) -> Option<(u64, Marker)> {
    let slots = (0..).zip(slots.chunks(SLOT));
    slots
        .filter_map(|(slot, bytes)| Some((slot, Marker::from_slot(bytes)?)))
        .max_by_key(|(_, marker)| marker.position)
}

/// Makes a marker, or replaces it. What it says of must be on disk, with its name.
pub(super) fn create(dir: &Path, marker: Marker) -> io::Result<()> {
    let new = dir.join(format!("{MARKER}.new"));
    let mut file = open_private(&new, true)?;
    for _ in 0..SLOTS {
        file.write_all(&marker.to_slot())?;
    }
    file.sync_all()?;
    fs::rename(&new, dir.join(MARKER))?;
    fsync::sync_directory(dir)
}

// === impl Marker ===

impl Marker {
    fn to_slot(self) -> Vec<u8> {
        let Self { epoch, position } = self;
        let text = format!("{TITLE}\nepoch {:016x}\nposition {position}\n", epoch.0);
        let mut slot = format!("{text}checksum {:08x}\n", checksum(text.as_bytes())).into_bytes();
        slot.resize(SLOT - 1, b' ');
        slot.push(b'\n');
        slot
    }

    fn from_slot(slot: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(slot).ok()?;
        let (text, rest) = text.split_once("checksum ")?;
        let sum = u32::from_str_radix(rest.lines().next()?, 16).ok()?;
        let mut lines = text.lines();
        let is_ours = lines.next()? == TITLE && sum == checksum(text.as_bytes());
        let epoch = lines.next()?.strip_prefix("epoch ")?;
        let position = lines.next()?.strip_prefix("position ")?;
        let marker = Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?),
            position: position.parse().ok()?,
        };
        is_ours.then_some(marker)
    }
}

/// FNV-1a, against torn writes and damage.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

// --- Keeping it up to date ------------------------------------------------

/// The thread that brings the marker forward.
pub(super) struct MarkerWriter {
    shared: Arc<MarkerShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct MarkerShared {
    state: Mutex<MarkerProgress>,
    changed: Condvar,
}

#[derive(Default)]
struct MarkerProgress {
    /// The newest position that is synced.
    committed_position: u64,
    /// Given once the marker has reached `committed`.
    replies: Vec<DeferredReply>,
    /// The thread has nothing to do.
    is_idle: bool,
    is_closed: bool,
}

/// The marker's file, and where it is written next.
struct Slots {
    file: File,
    written: Marker,
    next: u64,
}

// === impl MarkerWriter ===

impl MarkerWriter {
    /// Goes on with the marker of a directory. What the database has reached is on disk.
    pub(super) fn start(dir: &Path, reached: Marker) -> io::Result<Self> {
        Self::with(Slots::open(dir, reached)?, reached.position)
    }

    fn with(mut slots: Slots, committed: u64) -> io::Result<Self> {
        let shared = Arc::new(MarkerShared::default());
        shared.state.lock().committed_position = committed;
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal-marker".into());
        let thread = thread.spawn(move || worker.run(&mut slots))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// A commit that is synced has reached this position. The answers are given once the marker has too.
    pub(super) fn on_commit(&self, position: Option<u64>, answers: Vec<DeferredReply>) {
        if position.is_none() && answers.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        state.committed_position = state.committed_position.max(position.unwrap_or_default());
        let is_urgent = !answers.is_empty();
        state.replies.extend(answers);
        if is_urgent || state.is_idle {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for MarkerWriter {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_one();
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the thread that writes journal.marker panicked");
        }
    }
}

// === impl Shared ===

impl MarkerShared {
    fn run(&self, slots: &mut Slots) {
        let mut is_failing = false;
        loop {
            let (position, answers, is_closed) = self.wait_for_work(slots.written.position);
            let written = slots.write(position);
            if let Err(error) = &written
                && !is_failing
            {
                tracing::error!(%error, "journal.marker cannot be written: no change is sent until it can");
            }
            is_failing = written.is_err();
            let result = written.map_err(|error| {
                JournalError::Unavailable(format!("journal.marker cannot be written: {error}"))
            });
            for answer in answers {
                answer(result.as_ref().copied());
            }
            if is_closed {
                return;
            }
        }
    }

    /// Waits until there is something to write; what, and who waits for it.
    fn wait_for_work(&self, written: u64) -> (u64, Vec<DeferredReply>, bool) {
        let mut state = self.state.lock();
        while state.replies.is_empty() && !state.is_closed {
            if state.committed_position > written {
                if self.changed.wait_for(&mut state, INTERVAL).timed_out() {
                    break;
                }
            } else {
                state.is_idle = true;
                self.changed.wait(&mut state);
                state.is_idle = false;
            }
        }
        let answers = std::mem::take(&mut state.replies);
        (state.committed_position, answers, state.is_closed)
    }
}

// === impl Slots ===

impl Slots {
    /// Opens the marker of this epoch, or makes one. One that is there is not replaced: a full disk has no
    /// room for that.
    fn open(dir: &Path, reached: Marker) -> io::Result<Self> {
        let found = read_slots(dir)?.and_then(newest);
        let (slot, written) = match found {
            Some((slot, found)) if found.epoch == reached.epoch => (slot, found),
            _ => {
                create(dir, reached)?;
                (1, reached)
            }
        };
        Ok(Self {
            file: open_private(&dir.join(MARKER), false)?,
            written,
            next: (slot + 1) % SLOTS,
        })
    }

    /// Brings the marker forward, synced. Not the slot that was written last: it stays whole.
    fn write(&mut self, position: u64) -> io::Result<()> {
        if position <= self.written.position {
            return Ok(());
        }
        let marker = Marker {
            position,
            ..self.written
        };
        let at = self.next * SLOT as u64;
        self.file.write_all_at(&marker.to_slot(), at)?;
        self.file.sync_data()?;
        self.next = (self.next + 1) % SLOTS;
        self.written = marker;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(position: u64) -> Marker {
        Marker {
            epoch: Epoch(0xfeed),
            position,
        }
    }

    #[test]
    fn a_slot_that_is_torn_anywhere_leaves_the_other_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), MarkerFile::Missing);
        create(dir.path(), marker(7)).unwrap();
        for position in 8..12 {
            // As after a restart, with whichever slot is the newest.
            let mut slots = Slots::open(dir.path(), marker(position)).unwrap();
            assert_eq!(slots.written.position, position - 1);
            let before = fs::read(dir.path().join(MARKER)).unwrap();
            slots.write(position).unwrap();
            let after = fs::read(dir.path().join(MARKER)).unwrap();
            assert_eq!(
                load(dir.path()).unwrap(),
                MarkerFile::Valid(marker(position))
            );
            for torn in (0..after.len()).step_by(64) {
                let disk = [&after[..torn], &before[torn..]].concat();
                fs::write(dir.path().join(MARKER), disk).unwrap();
                let MarkerFile::Valid(found) = load(dir.path()).unwrap() else {
                    panic!("torn at {torn}: nothing is left")
                };
                assert!((position - 1..=position).contains(&found.position));
            }
            fs::write(dir.path().join(MARKER), after).unwrap();
        }
        fs::write(dir.path().join(MARKER), [b'x'; 2 * SLOT]).unwrap();
        assert_eq!(load(dir.path()).unwrap(), MarkerFile::Damaged);
    }

    #[test]
    fn replies_fail_when_the_marker_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), marker(0)).unwrap();
        let slots = Slots {
            // Opened for reading only.
            file: File::open(dir.path().join(MARKER)).unwrap(),
            written: marker(0),
            next: 0,
        };
        let writer = MarkerWriter::with(slots, 0).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let answer: DeferredReply =
            Box::new(move |result| sender.send(result.map_err(Clone::clone)).unwrap());
        writer.on_commit(Some(5), vec![answer]);
        let refused = receiver.recv().unwrap().unwrap_err().to_string();
        assert!(
            refused.contains("journal.marker cannot be written"),
            "{refused}"
        );
        drop(writer);
        assert_eq!(load(dir.path()).unwrap(), MarkerFile::Valid(marker(0)));
    }

    #[test]
    fn replies_wait_for_the_marker_and_drop_flushes_it() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), marker(0)).unwrap();
        let writer = MarkerWriter::start(dir.path(), marker(0)).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = dir.path().to_owned();
        let answer: DeferredReply = Box::new(move |result| {
            let is_ok = result.is_ok();
            sender.send((is_ok, load(&path).unwrap())).unwrap();
        });
        writer.on_commit(Some(5), vec![answer]);
        assert_eq!(
            receiver.recv().unwrap(),
            (true, MarkerFile::Valid(marker(5)))
        );
        writer.on_commit(Some(6), Vec::new());
        drop(writer);
        assert_eq!(load(dir.path()).unwrap(), MarkerFile::Valid(marker(6)));
    }
}
