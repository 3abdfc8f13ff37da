//! The marker: the journal's epoch and a position, kept outside the database.
//!
//! SQLite treats a damaged write-ahead log, or one of another database, as empty: the commits in it
//! are lost without an error, and a lost change would be sent again. The marker contains a position
//! that the database has reached. A database that ends before it has lost data.
//!
//! The marker is written after the commit and is never ahead of synced data.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use aws_lc_rs::digest;

use crate::journal::{
    Epoch,
    sqlite::directory::{self, MARKER, open_private},
};

/// Bytes of a slot. Slots are written in place and in turn; each has disk sectors of its own, so a
/// torn write leaves the other one intact.
const SLOT: usize = 4_096;
const SLOTS: u64 = 2;
const TITLE: &str = "thingspace-gateway journal marker, version 2";
/// The content of the marker while a loss is being accepted.
const UNFINISHED: &str = "thingspace-gateway journal marker: accept-loss has not finished\n";

/// The content of the marker: the database of this epoch has reached this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) epoch: Epoch,
    pub(super) position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkerFile {
    Missing,
    Damaged,
    /// `journal accept-loss` replaces an unusable database, and has not finished.
    Unfinished,
    Valid(Marker),
}

/// The marker's file, and the slot to write next.
pub(super) struct MarkerSlots {
    file: File,
    written: Marker,
    next: u64,
}

pub(super) fn load(dir: &Path) -> io::Result<MarkerFile> {
    Ok(match read_slots(dir)? {
        None => MarkerFile::Missing,
        Some(bytes) if bytes == UNFINISHED.as_bytes() => MarkerFile::Unfinished,
        Some(slots) => {
            newest(&slots).map_or(MarkerFile::Damaged, |(_, marker)| MarkerFile::Valid(marker))
        }
    })
}

/// Creates or replaces the marker. The data that it refers to must be synced.
pub(super) fn create(dir: &Path, marker: Marker) -> io::Result<()> {
    replace(dir, &[marker.to_slot(), marker.to_slot()].concat())
}

/// Creates a marker with which no gateway starts, until [`create`] replaces it.
pub(super) fn create_unfinished(dir: &Path) -> io::Result<()> {
    replace(dir, UNFINISHED.as_bytes())
}

fn replace(dir: &Path, content: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{MARKER}.new"));
    let mut file = open_private(&new, true)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(MARKER))?;
    directory::sync(dir)
}

fn read_slots(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(dir.join(MARKER)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the slot that was written last, and its index.
fn newest(slots: &[u8]) -> Option<(u64, Marker)> {
    let slots = (0..).zip(slots.chunks(SLOT));
    slots
        .filter_map(|(slot, bytes)| Some((slot, Marker::from_slot(bytes)?)))
        .max_by_key(|(_, marker)| marker.position)
}

impl Marker {
    fn to_slot(self) -> Vec<u8> {
        let Self { epoch, position } = self;
        let text = format!("{TITLE}\nepoch {:016x}\nposition {position}\n", epoch.0);
        let checksum = checksum(text.as_bytes());
        let mut slot = format!("{text}checksum {checksum:016x}\n").into_bytes();
        slot.resize(SLOT - 1, b' ');
        slot.push(b'\n');
        slot
    }

    fn from_slot(slot: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(slot).ok()?;
        let (text, rest) = text.split_once("checksum ")?;
        let stored_checksum = u64::from_str_radix(rest.lines().next()?, 16).ok()?;
        let mut lines = text.lines();
        let is_valid = lines.next()? == TITLE && stored_checksum == checksum(text.as_bytes());
        let epoch = lines.next()?.strip_prefix("epoch ")?;
        let position = lines.next()?.strip_prefix("position ")?;
        let marker = Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?),
            position: position.parse().ok()?,
        };
        is_valid.then_some(marker)
    }
}

/// Returns the first bytes of the SHA-256, which detect torn writes and damage.
fn checksum(bytes: &[u8]) -> u64 {
    let hash = digest::digest(&digest::SHA256, bytes);
    let prefix = hash.as_ref().first_chunk();
    prefix.copied().map_or(0, u64::from_be_bytes)
}

impl MarkerSlots {
    /// Opens the marker of this epoch, or creates it. Does not replace an existing one, because a full
    /// disk has no space for that.
    pub(super) fn open(dir: &Path, reached: Marker) -> io::Result<Self> {
        let found = read_slots(dir)?.and_then(|slots| newest(&slots));
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

    /// Slots that cannot be written.
    #[cfg(test)]
    pub(super) fn read_only(dir: &Path, written: Marker) -> Self {
        Self { file: File::open(dir.join(MARKER)).unwrap(), written, next: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.written.position
    }

    /// Writes and syncs a higher position. Keeps the slot that was written last intact.
    pub(super) fn write(&mut self, position: u64) -> io::Result<()> {
        if position <= self.written.position {
            return Ok(());
        }
        let marker = Marker { position, ..self.written };
        let offset = self.next * SLOT as u64;
        self.file.write_all_at(&marker.to_slot(), offset)?;
        self.file.sync_data()?;
        self.next = (self.next + 1) % SLOTS;
        self.written = marker;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
