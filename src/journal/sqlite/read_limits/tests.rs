use std::{fs, time::Duration};

use super::*;

/// More than any file system has.
const HUGE: u64 = 1 << 43;

#[test]
fn a_log_or_an_output_that_could_fill_the_file_system_ends_a_command() {
    let directory = tempfile::tempdir().unwrap();
    let device = fs::metadata(directory.path()).unwrap().dev();
    let limits = |output_device| ReadLimits {
        dir: directory.path().to_owned(),
        time: TimeLimit::start(Duration::from_secs(3_600)),
        output_device,
        locks: None,
    };
    for output_device in [None, Some(device), Some(device + 1)] {
        limits(output_device).check().unwrap();
    }
    // A log with a hole takes no space.
    File::create(directory.path().join(WAL)).unwrap().set_len(HUGE).unwrap();
    let output = limits(Some(device)).check().unwrap_err();
    assert!(output.to_string().contains("is on the file system of journal.dir"), "{output}");
    for output_device in [None, Some(device + 1)] {
        let log = limits(output_device).check().unwrap_err();
        assert!(log.to_string().contains("journal.db-wal has grown"), "{log}");
    }
}
