//! The open connections of one port.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    future::{pending, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    connections::{handshakes::Handshakes, share_key::ShareKey},
    telemetry::{CloseReason, Instruments, LogThrottle, Port},
};

/// A connection is idle for at least this time before a full port closes it: a new client has time for its request.
const MIN_IDLE: Duration = Duration::from_millis(50);
/// Age of an unread response at which an exhausted limit closes its connection.
const MIN_UNREAD: Duration = Duration::from_secs(2);
/// Minimum time between two searches for slow readers, because each of them looks at all connections.
const SEARCH_INTERVAL: Duration = Duration::from_millis(10);
/// Number of requests without a response that a connection may have although the port has many.
const SMALL_SHARE: usize = 16;
/// Interval of the log lines about closed connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Limits of one port.
#[derive(Debug, Clone, Copy)]
pub struct TableLimits {
    /// Maximum number of connections.
    pub connections: usize,
    /// Maximum number of requests of all connections whose response has not begun. Further ones are rejected. Beyond
    /// half of it, so are those of a connection with more than 16 of them.
    pub requests: usize,
    /// Maximum number of responses of all connections that are not completely written.
    pub unread_responses: usize,
}

/// The open connections of one port. Cheap to clone.
#[derive(Clone)]
pub struct ConnectionTable(Arc<Table>);

pub(super) struct Table {
    port: Port,
    limits: TableLimits,
    instruments: Instruments,
    connections: Mutex<Connections>,
    pub(super) handshakes: Handshakes,
    requests: AtomicUsize,
    unread_responses: AtomicUsize,
    last_search: Mutex<Option<Instant>>,
    /// Notified when a connection has closed.
    closed: Notify,
    throttle: LogThrottle,
}

#[derive(Default)]
struct Connections {
    next_id: u64,
    open: HashMap<u64, Arc<OpenConnection>>,
    /// Connections without a request in progress, by the time of their last activity.
    idle: BTreeSet<(Instant, u64)>,
    by_share: HashMap<ShareKey, usize>,
    /// Number of connections that were idle and are being closed.
    closing: usize,
}

/// An open connection. Its entry in the table is removed when it is dropped.
pub struct ConnectionGuard(Arc<OpenConnection>);

/// The state of an open connection.
pub struct OpenConnection {
    id: u64,
    share: Option<ShareKey>,
    table: Arc<Table>,
    close: CancellationToken,
    /// Number of requests whose response has not begun.
    requests: AtomicUsize,
    activity: Mutex<Activity>,
    responses: Mutex<Responses>,
    received_bytes: AtomicU64,
    /// True if the connection was idle and is being closed.
    is_evicted: AtomicBool,
}

struct Activity {
    /// Requests in progress that protect the connection.
    requests: usize,
    idle_since: Instant,
    /// True once a request has begun.
    is_used: bool,
}

/// The responses of a connection that are not completely written.
#[derive(Default)]
struct Responses {
    next_id: u64,
    /// By the order in which they began, with the time.
    unread: BTreeMap<u64, Instant>,
    /// Those of which the protocol has the last frame.
    complete: Vec<u64>,
    /// Woken when the complete ones are written.
    written: Option<Waker>,
    /// True if the connection is being closed, and its responses do not count any more.
    is_uncounted: bool,
}

/// A request in progress.
pub struct RequestGuard {
    connection: Arc<OpenConnection>,
    /// True until its response begins.
    is_counted: bool,
    /// True if the table does not close the connection to admit another one.
    is_protecting: bool,
}

// === impl ConnectionTable ===

impl ConnectionTable {
    /// Creates the table of a port.
    pub fn new(port: Port, limits: TableLimits, instruments: Instruments) -> Self {
        instruments.connections_limit(port, limits.connections);
        Self(Arc::new(Table {
            port,
            limits,
            instruments,
            connections: Mutex::default(),
            handshakes: Handshakes::default(),
            requests: AtomicUsize::new(0),
            unread_responses: AtomicUsize::new(0),
            last_search: Mutex::new(None),
            closed: Notify::new(),
            throttle: LogThrottle::new(LOG_INTERVAL),
        }))
    }

    /// Adds an accepted connection. A full table closes the connection that has been idle for the longest time. It
    /// waits if none is idle.
    pub async fn admit(&self) -> ConnectionGuard {
        self.admit_as(None).await
    }

    /// Adds an accepted connection, as [`Self::admit`] does, but returns `None` if the clients with this share
    /// already have `max_per_share` connections, and none of these is idle.
    pub async fn admit_share(
        &self,
        share: ShareKey,
        max_per_share: usize,
    ) -> Option<ConnectionGuard> {
        let mut is_free = self.has_free_share(share, max_per_share);
        if !is_free && self.close_idle(share) {
            let closed = async {
                while !self.has_free_share(share, max_per_share) {
                    self.0.closed.notified().await;
                }
            };
            is_free = timeout(MIN_IDLE / 5, closed).await.is_ok();
        }
        if !is_free {
            self.0.record_closed(CloseReason::AddressShare);
            return None;
        }
        Some(self.admit_as(Some(share)).await)
    }

    async fn admit_as(&self, share: Option<ShareKey>) -> ConnectionGuard {
        loop {
            let closed = self.0.closed.notified();
            if let Some(connection) = self.try_admit(share) {
                return connection;
            }
            let _ = timeout(MIN_IDLE / 5, closed).await;
        }
    }

    fn has_free_share(&self, share: ShareKey, max_per_share: usize) -> bool {
        let connections = self.0.connections.lock();
        connections.by_share.get(&share).is_none_or(|open| *open < max_per_share)
    }

    /// Closes the connection of this share that has been idle for the longest time. Returns false if none is idle.
    fn close_idle(&self, share: ShareKey) -> bool {
        let victim = self.0.connections.lock().pop_idle(Some(share));
        if let Some(victim) = &victim {
            self.0.close(victim, CloseReason::AddressShare);
        }
        victim.is_some()
    }

    fn try_admit(&self, share: Option<ShareKey>) -> Option<ConnectionGuard> {
        let mut connections = self.0.connections.lock();
        if connections.open.len() < self.0.limits.connections {
            return Some(ConnectionGuard(connections.insert(&self.0, share)));
        }
        let victim = (connections.closing == 0).then(|| connections.pop_idle(None)).flatten();
        drop(connections);
        if let Some(victim) = victim {
            self.0.close(&victim, CloseReason::Idle);
        }
        None
    }
}

// === impl Table ===

impl Table {
    pub(super) fn close(&self, connection: &OpenConnection, reason: CloseReason) {
        self.record_closed(reason);
        connection.close.cancel();
    }

    fn record_closed(&self, reason: CloseReason) {
        self.instruments.connection_closed(self.port, reason);
        if let Some(connections) = self.throttle.count(1) {
            tracing::warn!(
                port = self.port.name(),
                reason = reason.name(),
                connections,
                "closed connections to keep the port open for other clients (docs/limits.md)"
            );
        }
    }

    /// Closes the connections with the most unread responses until at most `max_unread` are left. Closes only
    /// connections whose oldest unread response has at least this age.
    fn close_slow_readers(&self, max_unread: usize, min_age: Duration) {
        {
            let mut last_search = self.last_search.lock();
            if last_search.is_some_and(|last| last.elapsed() < SEARCH_INTERVAL) {
                return;
            }
            *last_search = Some(Instant::now());
        }
        let open: Vec<_> = self.connections.lock().open.values().cloned().collect();
        let mut slow: Vec<_> = open
            .into_iter()
            .filter_map(|connection| Some((connection.unread_older_than(min_age)?, connection)))
            .collect();
        slow.sort_by_key(|(unread, _)| Reverse(*unread));
        for (_, connection) in slow {
            if self.unread_responses.load(Ordering::Relaxed) <= max_unread {
                return;
            }
            // The rest of the loop and other searches see the responses that are left.
            connection.responses.lock().stop_counting(&self.unread_responses);
            self.close(&connection, CloseReason::UnreadResponses);
        }
    }
}

// === impl Connections ===

impl Connections {
    fn insert(&mut self, table: &Arc<Table>, share: Option<ShareKey>) -> Arc<OpenConnection> {
        let (id, now) = (self.next_id, Instant::now());
        self.next_id += 1;
        let connection = Arc::new(OpenConnection {
            id,
            share,
            table: Arc::clone(table),
            close: CancellationToken::new(),
            requests: AtomicUsize::new(0),
            activity: Mutex::new(Activity { requests: 0, idle_since: now, is_used: false }),
            responses: Mutex::default(),
            received_bytes: AtomicU64::new(0),
            is_evicted: AtomicBool::new(false),
        });
        self.open.insert(id, Arc::clone(&connection));
        self.idle.insert((now, id));
        if let Some(share) = share {
            *self.by_share.entry(share).or_default() += 1;
        }
        table.instruments.connections_open(table.port, 1);
        connection
    }

    fn remove(&mut self, connection: &OpenConnection) {
        self.open.remove(&connection.id);
        self.idle.remove(&(connection.activity.lock().idle_since, connection.id));
        if connection.is_evicted.load(Ordering::Relaxed) {
            self.closing -= 1;
        }
        if let Some(share) = connection.share
            && let Some(open) = self.by_share.get_mut(&share)
        {
            *open -= 1;
            if *open == 0 {
                self.by_share.remove(&share);
            }
        }
        connection.table.instruments.connections_open(connection.table.port, -1);
    }

    /// Returns the connection that has been idle for the longest time, of this share if one is given. It is not
    /// returned again.
    fn pop_idle(&mut self, share: Option<ShareKey>) -> Option<Arc<OpenConnection>> {
        let found = self.idle.iter().take_while(|(since, _)| since.elapsed() >= MIN_IDLE).find_map(
            |(since, id)| {
                let connection = self.open.get(id)?;
                let is_of_share = share.is_none() || connection.share == share;
                is_of_share.then(|| ((*since, *id), Arc::clone(connection)))
            },
        );
        let (key, connection) = found?;
        self.idle.remove(&key);
        self.closing += 1;
        connection.is_evicted.store(true, Ordering::Relaxed);
        Some(connection)
    }
}

// === impl ConnectionGuard ===

impl ConnectionGuard {
    /// The state of the connection, which its requests share.
    pub fn state(&self) -> &Arc<OpenConnection> {
        &self.0
    }

    /// Completes when the table closes the connection in favour of other clients.
    pub async fn evicted(&self) {
        self.0.close.cancelled().await;
    }

    /// Completes when the client has not read a response for this time.
    pub async fn response_unread(&self, limit: Duration) {
        loop {
            let oldest = self.0.responses.lock().oldest();
            match oldest {
                Some(since) if since.elapsed() >= limit => return,
                Some(since) => sleep_until(since + limit).await,
                // Sees a response that begins now before it is due.
                None => sleep(limit / 2).await,
            }
        }
    }

    /// Counts the connection as closed because its client does not read.
    pub fn record_slow_reader(&self) {
        self.0.table.record_closed(CloseReason::UnreadResponses);
    }

    /// Completes when the connection has had no request in progress for this time.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let since = {
                let activity = self.0.activity.lock();
                if activity.requests == 0 { activity.idle_since } else { Instant::now() }
            };
            if since.elapsed() >= limit {
                return;
            }
            sleep_until(since + limit).await;
        }
    }

    /// Completes if no request begins within this time.
    pub async fn no_request_within(&self, limit: Duration) {
        sleep(limit).await;
        if self.0.activity.lock().is_used {
            pending::<()>().await;
        }
    }

    /// Completes if the client sends fewer bytes than this within the time.
    pub async fn fewer_bytes_within(&self, bytes: u64, limit: Duration) {
        sleep(limit).await;
        if self.0.received_bytes.load(Ordering::Relaxed) >= bytes {
            pending::<()>().await;
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.close.cancel();
        self.0.table.connections.lock().remove(&self.0);
        self.0.table.closed.notify_one();
    }
}

// === impl OpenConnection ===

impl OpenConnection {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Begins a request, which protects the connection until it ends.
    pub fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.update_activity(|activity| activity.requests += 1);
        self.count_request();
        RequestGuard { connection: Arc::clone(self), is_counted: true, is_protecting: true }
    }

    /// Begins a request that does not protect the connection: a full port may close it before the response.
    pub fn begin_unprotected_request(self: &Arc<Self>) -> RequestGuard {
        self.update_activity(|_| {});
        self.count_request();
        RequestGuard { connection: Arc::clone(self), is_counted: true, is_protecting: false }
    }

    fn count_request(&self) {
        self.table.requests.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns true if a new request of this connection must be rejected: the port has too many requests without a
    /// response. Beyond half of the limit, connections with many of them have too many.
    pub fn has_too_many_requests(&self) -> bool {
        let max = self.table.limits.requests;
        let all = self.table.requests.load(Ordering::Relaxed);
        all > max || (all > max / 2 && self.requests.load(Ordering::Relaxed) > SMALL_SHARE)
    }

    /// Closes the connection with the most unread responses on this port, if it has not read one of them for 2 s. For a
    /// call that finds a limit exhausted: unread responses may hold its permits.
    pub fn close_slowest_reader(&self) {
        let unread = self.table.unread_responses.load(Ordering::Relaxed);
        self.table.close_slow_readers(unread.saturating_sub(1), MIN_UNREAD);
    }

    fn update_activity(&self, update: impl FnOnce(&mut Activity)) {
        let mut connections = self.table.connections.lock();
        let mut activity = self.activity.lock();
        connections.idle.remove(&(activity.idle_since, self.id));
        update(&mut activity);
        activity.is_used = true;
        activity.idle_since = Instant::now();
        let is_evicted = self.is_evicted.load(Ordering::Relaxed);
        if activity.requests == 0 && !is_evicted && connections.open.contains_key(&self.id) {
            connections.idle.insert((activity.idle_since, self.id));
        }
    }

    pub(super) fn add_received(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a response until [`Self::remove_response`], or until it is complete and written. If there are too many,
    /// closes the connections with the most of them.
    pub(super) fn add_response(&self) -> u64 {
        let table = &self.table;
        let id = self.responses.lock().add(&table.unread_responses);
        let max = table.limits.unread_responses;
        if table.unread_responses.load(Ordering::Relaxed) > max {
            table.close_slow_readers(max / 4 * 3, Duration::ZERO);
        }
        id
    }

    /// Removes a response of which nothing is left to write.
    pub(super) fn remove_response(&self, id: u64) {
        self.responses.lock().remove(id, &self.table.unread_responses);
    }

    /// Records that the protocol has the last frame of a response.
    pub(super) fn complete_response(&self, id: u64) {
        self.responses.lock().complete.push(id);
    }

    /// Removes the complete responses: the connection has written everything.
    pub(super) fn flushed(&self) {
        let mut responses = self.responses.lock();
        for id in std::mem::take(&mut responses.complete) {
            responses.remove(id, &self.table.unread_responses);
        }
        if let Some(waker) = responses.written.take() {
            waker.wake();
        }
    }

    /// Completes when the connection has written all complete responses. For one request at a time, as HTTP/1.1 has it.
    pub async fn responses_written(&self) {
        poll_fn(|cx| {
            let mut responses = self.responses.lock();
            if responses.complete.is_empty() {
                return Poll::Ready(());
            }
            responses.written = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Number of unread responses, if the oldest has at least this age.
    fn unread_older_than(&self, min_age: Duration) -> Option<usize> {
        let responses = self.responses.lock();
        let is_old = responses.oldest().is_some_and(|since| since.elapsed() >= min_age);
        (is_old && !responses.is_uncounted).then_some(responses.unread.len())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.responses.get_mut().stop_counting(&self.table.unread_responses);
    }
}

// === impl Responses ===

impl Responses {
    fn oldest(&self) -> Option<Instant> {
        self.unread.first_key_value().map(|(_, since)| *since)
    }

    fn add(&mut self, count: &AtomicUsize) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.unread.insert(id, Instant::now());
        if !self.is_uncounted {
            count.fetch_add(1, Ordering::Relaxed);
        }
        id
    }

    fn remove(&mut self, id: u64, count: &AtomicUsize) {
        if self.unread.remove(&id).is_some() && !self.is_uncounted {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn stop_counting(&mut self, count: &AtomicUsize) {
        if !std::mem::replace(&mut self.is_uncounted, true) {
            count.fetch_sub(self.unread.len(), Ordering::Relaxed);
        }
    }
}

// === impl RequestGuard ===

impl RequestGuard {
    /// Protects the connection from now on.
    pub fn protect(&mut self) {
        if !std::mem::replace(&mut self.is_protecting, true) {
            self.connection.update_activity(|activity| activity.requests += 1);
        }
    }

    /// Records that the response begins. The guard of a stream still protects its connection.
    pub(super) fn respond(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            self.connection.table.requests.fetch_sub(1, Ordering::Relaxed);
            self.connection.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.respond();
        if self.is_protecting {
            self.connection.update_activity(|activity| activity.requests -= 1);
        }
    }
}

#[cfg(test)]
mod tests;
