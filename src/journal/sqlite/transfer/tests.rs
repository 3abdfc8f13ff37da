use std::{io::ErrorKind, time::Duration};

use rusqlite::Connection;

use super::*;
use crate::journal::transfer::tests::{Directory, NoonClock};

fn expired() -> TimeLimit {
    TimeLimit::start(Duration::ZERO)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_and_a_backup_end_at_their_time_limit() {
    let directory = Directory::new();
    directory.open().close().await;
    let dir = directory.path();
    let mut file = Vec::new();
    let ended = [
        check(&dir, false, expired()).map(drop),
        back_up(&dir, false, &NoonClock, expired(), None, &mut file).map(drop),
    ];
    for ended in ended {
        let Err(TransferError::Io(error)) = ended else { panic!("{ended:?}") };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    assert!(file.is_empty());
}

/// The limit also ends a statement that has begun.
#[test]
fn a_statement_is_interrupted_at_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut connection = Connection::open_in_memory().unwrap();
    let dir = directory.path().to_owned();
    let limits = ReadLimits { dir, time: expired(), output_device: None, locks: None };
    let reached = limit_reads(&mut connection, limits).unwrap();
    let endless = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number)
                   SELECT max(n) FROM number";
    let interrupted = SqliteTransfer(&connection).stream(endless, &mut |_| Ok(()));
    assert!(matches!(interrupted, Err(TransferError::Database(_))), "{interrupted:?}");
    assert_eq!(reached.lock().take().unwrap().kind(), ErrorKind::TimedOut);
}
