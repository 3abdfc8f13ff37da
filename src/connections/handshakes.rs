//! Bounds the TLS handshakes in progress on one port, because each of them may buffer 64 KiB.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    connections::{ConnectionGuard, OpenConnection},
    telemetry::CloseReason,
};

/// Maximum number of handshakes in progress on one port.
const MAX_HANDSHAKES: usize = 1_024;
/// A handshake has at least this time before it is ended in favour of others. That of a usual client takes far less.
const MIN_AGE: Duration = Duration::from_secs(1);
/// Interval of the search for a handshake to end.
const SEARCH_INTERVAL: Duration = Duration::from_millis(10);

/// The TLS handshakes of a port.
#[derive(Default)]
pub(super) struct Handshakes {
    active: Mutex<Active>,
    /// Notified when a handshake has ended.
    ended: Notify,
}

#[derive(Default)]
struct Active {
    /// Number of handshakes, with those that are being ended.
    count: usize,
    /// Handshakes that are not being ended, by their beginning.
    by_age: BTreeMap<(Instant, u64), Arc<OpenConnection>>,
}

/// A TLS handshake in progress.
pub struct HandshakeGuard {
    connection: Arc<OpenConnection>,
    began: Instant,
}

impl ConnectionGuard {
    /// Begins a TLS handshake. If 1,024 of them are in progress on the port, closes the connection whose handshake
    /// began first, and waits if all of them began less than a second ago.
    pub async fn begin_handshake(&self) -> HandshakeGuard {
        let (connection, table) = (self.state(), self.state().table());
        loop {
            let ended = table.handshakes.ended.notified();
            let oldest = match table.handshakes.active.lock().begin(connection) {
                Ok(guard) => return guard,
                Err(oldest) => oldest,
            };
            if let Some(oldest) = oldest {
                table.close(&oldest, CloseReason::Idle);
            }
            let _ = timeout(SEARCH_INTERVAL, ended).await;
        }
    }
}

impl Active {
    /// Begins a handshake. If there are too many, returns the oldest one, unless another one is being ended.
    fn begin(
        &mut self,
        connection: &Arc<OpenConnection>,
    ) -> Result<HandshakeGuard, Option<Arc<OpenConnection>>> {
        if self.count < MAX_HANDSHAKES {
            let connection = Arc::clone(connection);
            let guard = HandshakeGuard { connection, began: Instant::now() };
            self.count += 1;
            self.by_age.insert(guard.key(), Arc::clone(&guard.connection));
            return Ok(guard);
        }
        let is_ending = self.count > self.by_age.len();
        let oldest = self.by_age.first_entry().filter(|oldest| {
            let (began, _id) = oldest.key();
            !is_ending && began.elapsed() >= MIN_AGE
        });
        Err(oldest.map(|oldest| oldest.remove()))
    }
}

impl HandshakeGuard {
    fn key(&self) -> (Instant, u64) {
        (self.began, self.connection.id())
    }
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        let handshakes = &self.connection.table().handshakes;
        let mut active = handshakes.active.lock();
        active.count -= 1;
        active.by_age.remove(&self.key());
        drop(active);
        handshakes.ended.notify_one();
    }
}

#[cfg(test)]
mod tests;
