//! Runs the requests of an HTTP/2 connection.

use std::sync::Arc;

use futures_util::FutureExt as _;
use hyper::rt::Executor;

use crate::connections::OpenConnection;

/// Runs each request in a task of its own.
///
/// One read from a socket can begin hundreds of requests, whose tasks would all wait in memory. If the port has too many
/// requests, they are rejected, so their futures are ready: these run at once, without a task.
#[derive(Clone)]
pub struct RequestExecutor(Arc<OpenConnection>);

impl RequestExecutor {
    /// Returns the executor of a connection.
    pub fn new(connection: Arc<OpenConnection>) -> Self {
        Self(connection)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for RequestExecutor {
    fn execute(&self, request: F) {
        if !self.0.has_too_many_requests() {
            tokio::spawn(request);
            return;
        }
        let mut request = Box::pin(request);
        if request.as_mut().now_or_never().is_none() {
            tokio::spawn(request);
        }
    }
}
