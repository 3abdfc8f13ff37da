//! The destination of the lines.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd,
};

/// A destination of lines.
pub(super) trait Output: Send + 'static {
    /// Prepares an append of `length` bytes: opens or rotates the file if that is due.
    ///
    /// # Errors
    ///
    /// The destination cannot be used now.
    fn prepare(&mut self, length: usize) -> io::Result<()>;

    /// True if the destination ends with an incomplete line.
    fn is_torn(&self) -> bool;

    /// Appends complete lines.
    ///
    /// # Errors
    ///
    /// Some or all of the bytes are not written.
    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError>;

    /// Makes everything that was appended survive a power loss.
    ///
    /// # Errors
    ///
    /// It may be lost in a power loss.
    fn sync(&mut self) -> io::Result<()>;
}

/// A failed append.
#[derive(Debug)]
pub(super) struct AppendError {
    /// Number of bytes that are written.
    pub(super) written: usize,
    pub(super) error: io::Error,
}

/// A file to which lines are appended.
pub(super) struct LineFile {
    pub(super) file: File,
    /// True if the file does not end with a newline.
    pub(super) is_torn: bool,
}

/// The standard output. It is a pipe or a terminal and cannot be synced.
pub(super) struct StandardOutput(LineFile);

// === impl LineFile ===

impl LineFile {
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let mut written = 0;
        let mut result = Ok(());
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                break;
            }
        }
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.is_torn = *last != b'\n';
        }
        result.map_err(|error| AppendError { written, error })
    }
}

// === impl StandardOutput ===

impl StandardOutput {
    /// Opens it without the buffer of the standard library, which would hide how much is written.
    ///
    /// # Errors
    ///
    /// The process has no standard output.
    pub(super) fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self(LineFile { file, is_torn: false }))
    }
}

impl Output for StandardOutput {
    fn prepare(&mut self, _length: usize) -> io::Result<()> {
        Ok(())
    }

    fn is_torn(&self) -> bool {
        self.0.is_torn
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
