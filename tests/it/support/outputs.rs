//! Searches the outputs of a gateway for planted texts: its log, metrics and files.

use std::{
    io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::mpsc::{Receiver, channel};

use super::{gateway::TestDir, secrets::Secrets};

/// Settings that name the output files of a gateway.
const OUTPUT_SETTINGS: [&str; 3] = ["journal.dir", "journal.spool_dir", "audit.file"];
/// Time that a gateway has for its last metrics. One that is stopped or overloaded sends none.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// The outputs of a running gateway.
pub struct Outputs {
    secrets: Secrets,
    /// Reads the log to its end, so that the pipe never blocks the process. Returns it, and a line with a planted
    /// text.
    log: JoinHandle<(String, Option<String>)>,
    /// A line of the metrics with a planted text.
    in_metrics: Option<String>,
    /// Written directories and files.
    written: Vec<PathBuf>,
    /// Files that the gateway reads. They can be in the written directories.
    inputs: Vec<PathBuf>,
    _directory: Option<TestDir>,
}

impl Outputs {
    /// Reads the log of a process with these settings. Also returns its lines, until the receiver is dropped.
    pub fn read<'s>(
        log: PipeReader,
        secrets: Secrets,
        settings: impl Iterator<Item = (&'s str, &'s str)>,
        directory: Option<TestDir>,
    ) -> (Self, Receiver<String>) {
        let settings: Vec<(&str, &str)> = settings.collect();
        let paths = |is_path: &dyn Fn(&str) -> bool| {
            let paths = settings.iter().filter(|(name, _)| is_path(name));
            paths.map(|(_, path)| PathBuf::from(path)).collect::<Vec<_>>()
        };
        let (sender, lines) = channel(1);
        let search = secrets.clone();
        let log = thread::spawn(move || {
            let (mut text, mut found) = (String::new(), None);
            for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
                found = found.or_else(|| search.find_in_text(&line));
                let line = String::from_utf8_lossy(&line).into_owned();
                text.push_str(&line);
                text.push('\n');
                // Fails once the gateway has started.
                let _received = sender.blocking_send(line);
            }
            (text, found)
        });
        let this = Self {
            secrets,
            log,
            in_metrics: None,
            written: paths(&|name| OUTPUT_SETTINGS.contains(&name)),
            inputs: paths(&|name| name.ends_with("_file") || name == "config"),
            _directory: directory,
        };
        (this, lines)
    }

    /// Reads the metrics of a gateway that may have ended.
    pub fn read_metrics(&mut self, admin: SocketAddr) {
        let read = || {
            let mut stream = TcpStream::connect_timeout(&admin, METRICS_TIMEOUT)?;
            stream.set_read_timeout(Some(METRICS_TIMEOUT))?;
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
            let mut metrics = Vec::new();
            stream.read_to_end(&mut metrics).map(|_| metrics)
        };
        let metrics = read().unwrap_or_default();
        self.in_metrics = self.in_metrics.take().or_else(|| self.secrets.find_in_text(&metrics));
    }

    /// Waits until the process has ended, and returns its log. Fails if it has written a planted text.
    pub fn check(self) -> String {
        let (log, in_log) = self.log.join().expect("no panic");
        let mut found: Vec<String> =
            in_log.map(|line| format!("log: {line}")).into_iter().collect();
        found.extend(self.in_metrics.map(|line| format!("metrics: {line}")));
        for path in &self.written {
            for path in with_rotated(path) {
                found.extend(self.secrets.find_below(&path, &self.inputs));
            }
        }
        assert!(found.is_empty(), "a gateway has written planted texts:\n{}", found.join("\n"));
        log
    }
}

/// Returns the path, and those of the rotated files of an audit log.
fn with_rotated(path: &Path) -> Vec<PathBuf> {
    let mut paths = vec![path.to_owned()];
    if let (false, Some(directory), Some(name)) = (path.is_dir(), path.parent(), path.file_name()) {
        let name = format!("{}.", name.to_string_lossy());
        let entries = directory.read_dir().into_iter().flatten().filter_map(Result::ok);
        let rotated =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
        paths.extend(rotated.map(|entry| entry.path()));
    }
    paths
}
