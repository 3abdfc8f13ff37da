//! Reads the records of the preloaded library (`tests/tools/disk_trace.c`).

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use crate::support::{gateway::Setup, preload::compile_preload};

/// A moment of a recording: the number of the process and the length of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub usize, pub u64);

/// Records the operations of processes on one directory.
pub struct DiskRecorder {
    logs: PathBuf,
    root: PathBuf,
}

/// A recorded operation.
#[derive(Debug, Clone)]
pub enum Op {
    Create {
        ino: u64,
        path: String,
    },
    Write {
        ino: u64,
        at: usize,
        data: Range<usize>,
    },
    Resize {
        ino: u64,
        to: usize,
    },
    Allocate {
        ino: u64,
        to: usize,
    },
    MakeDir {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    Begin {
        sync: (usize, u64),
        what: SyncTarget,
    },
    End {
        sync: (usize, u64),
    },
    /// An ignored sync.
    Nothing,
}

/// The target of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncTarget {
    File(u64),
    Directory(String),
}

/// All recorded operations, in order.
#[derive(Default)]
pub struct Trace {
    /// Each operation with the moment at which its record was complete.
    pub ops: Vec<(Moment, Op)>,
    /// The written bytes.
    pub data: Vec<u8>,
    /// Base URL of the ThingSpace of the recorded changes.
    pub base_url: String,
}

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| compile_preload("disk_trace"));

// === impl DiskRecorder ===

impl DiskRecorder {
    /// Prepares a root below `directory`, and records beside it.
    pub fn new(directory: &Path) -> Self {
        let directory = directory.canonicalize().expect("a directory");
        let root = directory.join("disk");
        fs::create_dir(&root).expect("a directory");
        Self { logs: directory.join("trace"), root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Settings that record the process with this number.
    pub fn watch(&self, setup: &Setup, process: usize) -> Setup {
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        setup
            .clone()
            .env("LD_PRELOAD", &text(&LIBRARY))
            .env("TEST_TRACE_ROOT", &text(&self.root))
            .env("TEST_TRACE_LOG", &text(&self.log(process)))
    }

    /// The current moment. Operations with a visible effect are recorded before it.
    pub fn now(&self, process: usize) -> Moment {
        let length = fs::metadata(self.log(process)).map_or(0, |log| log.len());
        Moment(process, length)
    }

    /// Size of a file below the root.
    pub fn size(&self, path: &str) -> u64 {
        fs::metadata(self.root.join(path)).map_or(0, |file| file.len())
    }

    /// True if the last operation of the process was a sync.
    pub fn has_just_synced(&self, process: usize) -> bool {
        let log = fs::read(self.log(process)).unwrap_or_default();
        let mut lines = log.rsplit(|byte| *byte == b'\n');
        lines.nth(1).is_some_and(|line| line.starts_with(b"E "))
    }

    /// Number of starts of the write-ahead log. Its header has 32 bytes.
    pub fn wal_restarts(&self, process: usize) -> usize {
        let mut trace = Trace::default();
        trace.parse(process, &fs::read(self.log(process)).unwrap_or_default());
        let begins = |op: &Op| matches!(op, Op::Write { at: 0, data, .. } if data.len() == 32);
        trace.ops.iter().filter(|(_, op)| begins(op)).count()
    }

    fn log(&self, process: usize) -> PathBuf {
        self.logs.with_extension(process.to_string())
    }

    /// Reads the records of all processes, one after the other.
    pub fn load_trace(&self, processes: usize, base_url: &str) -> Trace {
        let mut trace = Trace { base_url: base_url.into(), ..Trace::default() };
        for process in 0..processes {
            let log = fs::read(self.log(process)).expect("a record: is the library preloaded?");
            trace.parse(process, &log);
        }
        trace
    }
}

// === impl Trace ===

impl Trace {
    fn parse(&mut self, process: usize, log: &[u8]) {
        let base = self.data.len();
        self.data.extend_from_slice(log);
        let mut at = 0;
        // A kill can truncate the last record. Its operation had no visible effect.
        while let Some(length) = log[at..].iter().position(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(&log[at..at + length]).expect("text");
            let mut end = at + length + 1;
            let (kind, rest) = line.split_once(' ').expect("a record");
            if kind == "W" {
                let size: usize = rest.rsplit(' ').next().expect("a size").parse().expect("it");
                let data = base + end..base + end + size;
                end += size + 1;
                if end > log.len() {
                    break;
                }
                let [ino, at, _] = numbers(rest);
                let at = usize::try_from(at).expect("small");
                self.ops.push((moment(process, end), Op::Write { ino, at, data }));
            } else {
                self.ops.push((moment(process, end), parse_op(process, kind, rest)));
            }
            at = end;
        }
    }

    /// Number of operations before this moment.
    pub fn ops_before(&self, moment: Moment) -> usize {
        self.ops.partition_point(|(done, _)| *done <= moment)
    }

    /// The trace of a disk that ignores the syncs that `ignores` selects by target and path.
    pub fn with_ignored_syncs(&self, ignores: impl Fn(&SyncTarget, &str) -> bool) -> Self {
        let mut names: HashMap<u64, &str> = HashMap::new();
        let mut ignored = Vec::new();
        let ops = self.ops.iter().map(|(moment, op)| {
            let op = match op {
                Op::Create { ino, path } => {
                    names.insert(*ino, path);
                    op.clone()
                }
                Op::Begin { sync, what } => {
                    let name = match what {
                        SyncTarget::File(ino) => names.get(ino).copied().unwrap_or_default(),
                        SyncTarget::Directory(path) => path,
                    };
                    if ignores(what, name) {
                        ignored.push(*sync);
                    }
                    op.clone()
                }
                Op::End { sync } if ignored.contains(sync) => Op::Nothing,
                op => op.clone(),
            };
            (*moment, op)
        });
        Self { ops: ops.collect(), base_url: self.base_url.clone(), data: self.data.clone() }
    }
}

fn moment(process: usize, end: usize) -> Moment {
    Moment(process, u64::try_from(end).expect("small"))
}

fn numbers<const N: usize>(text: &str) -> [u64; N] {
    let numbers: Vec<u64> =
        text.split(' ').map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("so many numbers")
}

fn parse_op(process: usize, kind: &str, rest: &str) -> Op {
    let split = |separator| rest.split_once(separator).expect("two parts");
    let size = |text: &str| text.parse::<usize>().expect("a size");
    match kind {
        "O" => {
            Op::Create { ino: split(' ').0.parse().expect("a number"), path: split(' ').1.into() }
        }
        "T" => Op::Resize { ino: split(' ').0.parse().expect("a number"), to: size(split(' ').1) },
        "A" => {
            Op::Allocate { ino: split(' ').0.parse().expect("a number"), to: size(split(' ').1) }
        }
        "M" => Op::MakeDir { path: rest.into() },
        "U" => Op::Remove { path: rest.into() },
        "N" => Op::Rename { from: split('\t').0.into(), to: split('\t').1.into() },
        "B" => {
            let mut parts = rest.splitn(3, ' ');
            let mut next = || parts.next().expect("three parts");
            let number = next().parse().expect("a number");
            let what = match next() {
                "F" => SyncTarget::File(next().parse().expect("a number")),
                _ => SyncTarget::Directory(next().into()),
            };
            Op::Begin { sync: (process, number), what }
        }
        "E" => Op::End { sync: (process, rest.parse().expect("a number")) },
        _ => panic!("the library cannot record this: {rest}"),
    }
}
