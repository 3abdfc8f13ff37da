//! Reads the files of a log, also while the gateway writes them.

use std::{
    collections::{HashSet, VecDeque},
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::audit::file::rotated_files;

/// Maximum length of a line. The gateway writes at most 6 KiB.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Number of records among which a repeated one is recognized. More than the lines of one write.
const RECENT_IDS: usize = 4_096;

/// Device and inode of a file.
type FileId = (u64, u64);

/// The fields of a record.
pub type ParsedRecord = Map<String, Value>;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditLine {
    /// A record and its text.
    Record(String, ParsedRecord),
    /// A line that is not a record, such as one that a power loss has cut.
    Torn,
}

/// The lines of all files of a log, the oldest first. A record that was written twice after a failed sync occurs once.
pub struct AuditReader {
    files: VecDeque<File>,
    current: Option<BufReader<File>>,
    recent: VecDeque<String>,
    known: HashSet<String>,
}

/// Follows the end of a log through its rotations.
pub struct AuditTail {
    path: PathBuf,
    lines: BufReader<File>,
    id: FileId,
    /// The begin of a line that is not complete yet.
    partial: Vec<u8>,
}

// === impl AuditLine ===

impl AuditLine {
    fn parse(line: &[u8]) -> Self {
        let text = str::from_utf8(line).ok();
        let parsed =
            text.and_then(|text| Some((text.to_owned(), serde_json::from_str(text).ok()?)));
        parsed.map_or(Self::Torn, |(text, record)| Self::Record(text, record))
    }
}

// === impl AuditReader ===

impl AuditReader {
    /// Opens all files of the log at `path`.
    ///
    /// # Errors
    ///
    /// There is no file, or one cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let files = open_files(path)?.into_iter().map(|(file, _)| file).collect();
        Ok(Self { files, current: None, recent: VecDeque::new(), known: HashSet::new() })
    }

    /// Returns the next line, or `None` at the end of the last file.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<AuditLine>> {
        loop {
            let Some(file) = &mut self.current else {
                let Some(file) = self.files.pop_front() else { return Ok(None) };
                self.current = Some(BufReader::new(file));
                continue;
            };
            let Some(line) = read_line(file)? else {
                self.current = None;
                continue;
            };
            let line = AuditLine::parse(&line);
            if !self.is_repeated(&line) {
                return Ok(Some(line));
            }
        }
    }

    fn is_repeated(&mut self, line: &AuditLine) -> bool {
        let AuditLine::Record(_, record) = line else { return false };
        let Some(id) = record.get("id").and_then(Value::as_str) else { return false };
        if !self.known.insert(id.to_owned()) {
            return true;
        }
        self.recent.push_back(id.to_owned());
        if self.recent.len() > RECENT_IDS
            && let Some(oldest) = self.recent.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }
}

// === impl AuditTail ===

impl AuditTail {
    /// Opens the log at `path`. Returns the last `count` lines, and a tail for those that follow.
    ///
    /// # Errors
    ///
    /// There is no file, or one cannot be read.
    pub fn open(path: &Path, count: usize) -> io::Result<(Vec<AuditLine>, Self)> {
        let mut files = open_files(path)?;
        let Some((file, id)) = files.pop() else { return Err(io::ErrorKind::NotFound.into()) };
        let mut tail =
            Self { path: path.to_owned(), lines: BufReader::new(file), id, partial: Vec::new() };
        let mut newest = VecDeque::new();
        while let Some(line) = tail.next_complete()? {
            push_last(&mut newest, line, count);
        }
        for (file, _) in files.into_iter().rev() {
            if newest.len() >= count {
                break;
            }
            let (mut lines, mut older) = (BufReader::new(file), VecDeque::new());
            while let Some(line) = read_line(&mut lines)? {
                push_last(&mut older, line, count - newest.len());
            }
            older.append(&mut newest);
            newest = older;
        }
        Ok((newest.iter().map(|line| AuditLine::parse(line)).collect(), tail))
    }

    /// Returns the next line, or `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<AuditLine>> {
        loop {
            if let Some(line) = self.next_complete()? {
                return Ok(Some(AuditLine::parse(&line)));
            }
            let files = open_files(&self.path)?;
            let own = files.iter().position(|(_, id)| *id == self.id);
            // A file that is deleted already was the oldest.
            let next = own.map_or(0, |own| own + 1);
            if next >= files.len() {
                return Ok(None);
            }
            // Its last lines may have been written after the read above.
            if let Some(line) = self.next_complete()? {
                return Ok(Some(AuditLine::parse(&line)));
            }
            if let Some((file, id)) = files.into_iter().nth(next) {
                (self.lines, self.id) = (BufReader::new(file), id);
                self.partial.clear();
            }
        }
    }

    /// Returns the next line that ends with a newline.
    fn next_complete(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = MAX_LINE_BYTES.saturating_sub(u64::try_from(self.partial.len()).unwrap_or(0));
        (&mut self.lines).take(left).read_until(b'\n', &mut self.partial)?;
        let is_complete = self.partial.ends_with(b"\n");
        let is_too_long = self.partial.len() >= usize::try_from(MAX_LINE_BYTES).unwrap_or(0);
        if !(is_complete || is_too_long) {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.partial);
        line.truncate(line.len() - usize::from(is_complete));
        Ok(Some(line))
    }
}

fn push_last(lines: &mut VecDeque<Vec<u8>>, line: Vec<u8>, count: usize) {
    lines.push_back(line);
    if lines.len() > count {
        lines.pop_front();
    }
}

/// Reads a line without its newline. The pieces of a line that is too long are lines of their own.
fn read_line(lines: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if lines.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(Some(line))
}

/// Opens all files, the oldest first. Repeats it if the gateway rotates them meanwhile.
fn open_files(path: &Path) -> io::Result<Vec<(File, FileId)>> {
    loop {
        let rotated = rotated_files(path)?;
        let paths = rotated.iter().map(|file| file.path.as_path()).chain([path]);
        let files = paths.map(open_if_exists).collect::<io::Result<Vec<_>>>()?;
        if rotated_files(path)? == rotated {
            let files: Vec<_> = files.into_iter().flatten().collect();
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            return if files.is_empty() { Err(missing()) } else { Ok(files) };
        }
    }
}

/// Opens a file. `None` if it was rotated or deleted meanwhile.
fn open_if_exists(path: &Path) -> io::Result<Option<(File, FileId)>> {
    match File::open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(Some((file, (metadata.dev(), metadata.ino()))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
