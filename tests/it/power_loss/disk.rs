//! A disk with the guarantees of POSIX, which are weaker than those of file systems.
//!
//! Synced data is on the disk. Any part of all other data may be, in any order, torn at any sector. A file
//! has the name with which its directory was synced, or none.
//!
//! Like SQLite, the simulation assumes that a write does not change other bytes of its sectors
//! (`SQLITE_POWERSAFE_OVERWRITE`).

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use super::trace::{Op, SyncTarget, Trace};

const SECTOR: usize = 512;

/// The fate of unsynced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsyncedData {
    /// All of it is lost.
    Lost,
    /// All of it is on the disk.
    Kept,
    /// All of it is on the disk, except that the last write of each file is truncated at a sector.
    Torn(u64),
    /// A random part is on the disk, by this seed.
    Any(u64),
}

/// Target of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory(usize),
}

/// A disk at some operation of a trace.
#[derive(Default)]
pub struct SimulatedDisk {
    done: usize,
    files: Vec<File>,
    directories: Vec<DirectoryState>,
    /// Current file of each inode number of the trace.
    inodes: HashMap<u64, usize>,
    /// All paths as running processes see them.
    paths: BTreeMap<String, Node>,
    /// By process and number.
    begun: HashMap<(usize, u64), BegunSync>,
}

struct BegunSync {
    target: SyncTarget,
    /// Number of the operation that began it.
    begin: usize,
}

#[derive(Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<PendingPiece>,
}

/// An unsynced write.
struct PendingPiece {
    /// Number of its operation.
    number: usize,
    piece: Piece,
}

#[derive(Default)]
struct DirectoryState {
    synced: BTreeMap<String, Node>,
    pending: Vec<PendingEntry>,
}

/// An unsynced change of a directory entry.
struct PendingEntry {
    /// Number of its operation.
    number: usize,
    name: String,
    /// `None` if the entry is removed.
    node: Option<Node>,
}

#[derive(Clone)]
enum Piece {
    Write { at: usize, data: std::ops::Range<usize> },
    Resize(usize),
    Allocate(usize),
}

// === impl SimulatedDisk ===

impl SimulatedDisk {
    /// Returns an empty disk.
    pub fn new() -> Self {
        let mut disk = Self::default();
        disk.directories.push(DirectoryState::default());
        disk.paths.insert(String::new(), Node::Directory(0));
        disk
    }

    /// Applies the first `to` operations of a trace.
    pub fn advance(&mut self, trace: &Trace, to: usize) {
        for (_, op) in &trace.ops[self.done..to] {
            let number = self.done;
            self.done += 1;
            self.apply(number, op, &trace.data);
        }
    }

    fn apply(&mut self, number: usize, op: &Op, data: &[u8]) {
        match op {
            Op::Create { ino, path } => {
                self.files.push(File::default());
                let file = self.files.len() - 1;
                self.inodes.insert(*ino, file);
                self.set_entry(number, path, Some(Node::File(file)));
            }
            Op::MakeDir { path } => {
                self.directories.push(DirectoryState::default());
                let directory = self.directories.len() - 1;
                self.set_entry(number, path, Some(Node::Directory(directory)));
            }
            Op::Remove { path } => self.set_entry(number, path, None),
            Op::Rename { from, to } => {
                let node = self.paths.get(from).copied();
                // Atomic on all journaling file systems.
                self.set_entry(number, to, node);
                self.set_entry(number, from, None);
            }
            Op::Write { ino, at, data } => {
                let (at, data) = (*at, data.clone());
                self.change(number, *ino, Piece::Write { at, data });
            }
            Op::Resize { ino, to } => self.change(number, *ino, Piece::Resize(*to)),
            Op::Allocate { ino, to } => self.change(number, *ino, Piece::Allocate(*to)),
            Op::Begin { sync, what } => {
                let target = what.clone();
                self.begun.insert(*sync, BegunSync { target, begin: number });
            }
            Op::Nothing => {}
            Op::End { sync } => {
                let BegunSync { target, begin } = self.begun.remove(sync).expect("it has begun");
                self.sync(&target, begin, data);
            }
        }
    }

    fn set_entry(&mut self, number: usize, path: &str, node: Option<Node>) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(Node::Directory(parent)) = self.paths.get(parent).copied() else {
            panic!("{path} has no parent directory");
        };
        self.directories[parent].pending.push(PendingEntry { number, name: name.into(), node });
        match node {
            Some(node) => self.paths.insert(path.into(), node),
            None => self.paths.remove(path),
        };
    }

    fn change(&mut self, number: usize, ino: u64, piece: Piece) {
        let file = *self.inodes.get(&ino).expect("it was created");
        self.files[file].pending.push(PendingPiece { number, piece });
    }

    /// Syncs all data from before this operation.
    fn sync(&mut self, target: &SyncTarget, before: usize, data: &[u8]) {
        match target {
            SyncTarget::File(ino) => {
                let file = &mut self.files[*self.inodes.get(ino).expect("it was created")];
                let kept = file.pending.partition_point(|pending| pending.number < before);
                for PendingPiece { piece, .. } in file.pending.drain(..kept) {
                    piece.apply(&mut file.synced, data);
                }
            }
            SyncTarget::Directory(path) => {
                let Some(Node::Directory(directory)) = self.paths.get(path).copied() else {
                    panic!("{path} is no directory");
                };
                let directory = &mut self.directories[directory];
                let kept = directory.pending.partition_point(|pending| pending.number < before);
                for PendingEntry { name, node, .. } in directory.pending.drain(..kept) {
                    put(&mut directory.synced, name, node);
                }
            }
        }
    }

    /// True if some data is not synced.
    pub fn has_unsynced(&self) -> bool {
        self.files.iter().any(|file| !file.pending.is_empty())
            || self.directories.iter().any(|directory| !directory.pending.is_empty())
    }

    /// Writes the files that a power loss would leave now.
    pub fn write(&self, unsynced: UnsyncedData, data: &[u8], to: &Path) -> io::Result<()> {
        let mut choice = Choice::for_data(unsynced);
        self.write_directory(0, &mut choice, data, to)
    }

    fn write_directory(
        &self,
        directory: usize,
        choice: &mut Choice,
        data: &[u8],
        to: &Path,
    ) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let directory = &self.directories[directory];
        let mut names = directory.synced.clone();
        for PendingEntry { name, node, .. } in &directory.pending {
            if choice.keeps_name() {
                put(&mut names, name.clone(), *node);
            }
        }
        for (name, node) in names {
            match node {
                Node::Directory(inner) => {
                    self.write_directory(inner, choice, data, &to.join(name))?;
                }
                Node::File(file) => {
                    fs::write(to.join(name), self.files[file].content(choice, data))?;
                }
            }
        }
        Ok(())
    }

    /// Returns all files with synced and unsynced data.
    pub fn files(&self, data: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut choice = Choice::for_data(UnsyncedData::Kept);
        let mut content = |node: &Node| match node {
            Node::File(file) => Some(self.files[*file].content(&mut choice, data)),
            Node::Directory(_) => None,
        };
        let files = self.paths.iter();
        files.filter_map(|(path, node)| Some((path.clone(), content(node)?))).collect()
    }
}

fn put(names: &mut BTreeMap<String, Node>, name: String, node: Option<Node>) {
    match node {
        Some(node) => names.insert(name, node),
        None => names.remove(&name),
    };
}

// === impl File ===

impl File {
    fn content(&self, choice: &mut Choice, data: &[u8]) -> Vec<u8> {
        let mut content = self.synced.clone();
        choice.begin_file();
        for (index, PendingPiece { piece, .. }) in self.pending.iter().enumerate() {
            let is_last = index + 1 == self.pending.len();
            for part in choice.parts(piece, is_last) {
                part.apply(&mut content, data);
            }
        }
        content
    }
}

// === impl Piece ===

impl Piece {
    fn apply(&self, content: &mut Vec<u8>, data: &[u8]) {
        match self {
            Self::Write { at, data: range } => {
                let end = at + range.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(&data[range.clone()]);
            }
            Self::Resize(to) => content.resize(*to, 0),
            Self::Allocate(to) => content.resize(content.len().max(*to), 0),
        }
    }

    /// Splits a write by sectors.
    fn sectors(&self) -> Vec<Self> {
        let Self::Write { at, data } = self else {
            return vec![self.clone()];
        };
        let mut sectors = Vec::new();
        let mut from = 0;
        while from < data.len() {
            let to = (from + SECTOR - (at + from) % SECTOR).min(data.len());
            sectors.push(Self::Write { at: at + from, data: data.start + from..data.start + to });
            from = to;
        }
        sectors
    }
}

/// Chooses the unsynced data that is on the disk.
struct Choice {
    unsynced: UnsyncedData,
    random: fastrand::Rng,
    /// Probability that a write of the current file is on the disk.
    share: f64,
    /// True if each sector is chosen separately.
    by_sector: bool,
    /// True if the file has its full length, whatever was written.
    grown: bool,
}

// === impl Choice ===

impl Choice {
    fn for_data(unsynced: UnsyncedData) -> Self {
        let seed = match unsynced {
            UnsyncedData::Torn(seed) | UnsyncedData::Any(seed) => seed,
            UnsyncedData::Lost | UnsyncedData::Kept => 0,
        };
        Self {
            unsynced,
            random: fastrand::Rng::with_seed(seed),
            share: 0.0,
            by_sector: false,
            grown: false,
        }
    }

    fn keeps_name(&mut self) -> bool {
        match self.unsynced {
            UnsyncedData::Lost => false,
            UnsyncedData::Kept | UnsyncedData::Torn(_) => true,
            UnsyncedData::Any(_) => self.random.bool(),
        }
    }

    /// Chooses the parameters of the next file. Files differ: one can be lost, another complete.
    fn begin_file(&mut self) {
        self.share = [0.0, 0.3, 0.5, 0.9, 1.0][self.random.usize(0..5)];
        self.by_sector = self.random.bool();
        self.grown = self.random.bool();
    }

    fn parts(&mut self, piece: &Piece, is_last: bool) -> Vec<Piece> {
        match self.unsynced {
            UnsyncedData::Lost => Vec::new(),
            UnsyncedData::Kept => vec![piece.clone()],
            UnsyncedData::Torn(_) if !is_last => vec![piece.clone()],
            UnsyncedData::Torn(_) => {
                let mut sectors = piece.sectors();
                sectors.truncate(self.random.usize(0..=sectors.len().saturating_sub(1)));
                sectors
            }
            UnsyncedData::Any(_) => {
                let mut chosen = if self.by_sector { piece.sectors() } else { vec![piece.clone()] };
                chosen.retain(|_| self.random.f64() < self.share);
                if self.grown
                    && let Piece::Write { at, data } = piece
                {
                    chosen.push(Piece::Allocate(at + data.len()));
                }
                chosen
            }
        }
    }
}
