use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
    mpsc::channel,
};

use super::*;

const INTERVAL: Duration = Duration::from_millis(1);

fn expired() -> TimeLimit {
    TimeLimit::start(Duration::ZERO)
}

#[test]
fn no_byte_is_written_after_the_time_limit() {
    let mut output = Vec::new();
    let check = || expired().remaining().map(drop);
    let written = write_within_limits(&mut output, check, |output| Ok(output.write_all(b"x")?));
    let Err(TransferError::Io(error)) = written else { panic!("{written:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("--time-limit"), "{error}");
    assert!(output.is_empty());
}

#[test]
fn a_limit_that_is_reached_while_a_write_blocks_ends_the_process() {
    let (ended, blocked_write) = channel();
    let check = || expired().remaining().map(drop);
    let end = move |error: &io::Error| ended.send(error.kind()).unwrap();
    let _watchdog = Watchdog::start(check, INTERVAL, end).unwrap();
    assert_eq!(blocked_write.recv(), Ok(ErrorKind::TimedOut));
}

/// The space of a file system can be low for a moment.
#[test]
fn a_limit_that_is_reached_for_a_moment_and_a_backup_that_ends_do_not_end_the_process() {
    let (checked, checks) = channel();
    let (ended, end_of_thread) = channel::<()>();
    let count = Arc::new(AtomicU32::new(0));
    let check = move || {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = checked.send(());
        match number % MAX_FAILED_CHECKS {
            0 => Ok(()),
            _ => Err(ErrorKind::StorageFull.into()),
        }
    };
    let end = move |_: &io::Error| ended.send(()).unwrap();
    let watchdog = Watchdog::start(check, INTERVAL, end).unwrap();
    for _ in 0..5 * MAX_FAILED_CHECKS {
        checks.recv().unwrap();
    }
    drop(watchdog);
    assert!(end_of_thread.recv().is_err(), "the thread ends, and not the process");
}
