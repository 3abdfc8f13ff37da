use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::{
    connections::{ConnectionTable, TableLimits},
    telemetry::{Instruments, Port},
};

#[tokio::test(start_paused = true)]
async fn only_a_write_without_progress_times_out() {
    let limits = TableLimits { connections: 1, requests: 100, unread_responses: 10 };
    let table = ConnectionTable::new(Port::Admin, limits, Instruments::noop());
    let connection = table.admit().await;
    let (stream, mut client) = duplex(4);
    let limit = Duration::from_secs(10);
    let mut io = ConnectionIo::new(stream, Arc::clone(connection.state()), limit);
    let slow_reader = tokio::spawn(async move {
        let mut received = [0; 12];
        for byte in received.chunks_mut(1) {
            sleep(limit / 2).await;
            client.read_exact(byte).await.unwrap();
        }
        client
    });
    io.write_all(&[0; 16]).await.unwrap();
    let _unread = slow_reader.await.unwrap();
    let error = io.write_all(&[0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
