//! Drives the connections.

use std::{future::Future, io, sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// Drives connections to the database, outside the runtime of the program: there, a response would wait for all tasks that
/// are ready before, such as those of hundreds of callbacks after a commit.
pub(super) enum Driver {
    /// A thread of its own, for connections that several threads use.
    Thread {
        handle: Handle,
        /// Dropping it ends the thread, and closes the connections.
        _stop: oneshot::Sender<()>,
    },
    /// The thread that waits for a response. No other thread has to be woken, and statements that are sent before it
    /// waits need one write to the socket together.
    Caller(Arc<Runtime>),
}

impl Driver {
    pub(super) fn start_thread() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("journal-driver".into()).spawn(move || {
            // Returns an error, as nothing is sent.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self::Thread { handle, _stop: stop })
    }

    pub(super) fn handle(&self) -> &Handle {
        match self {
            Self::Thread { handle, .. } => handle,
            Self::Caller(runtime) => runtime.handle(),
        }
    }

    /// Waits for a future.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Thread { handle, .. } => handle.block_on(future),
            Self::Caller(runtime) => runtime.block_on(future),
        }
    }

    /// Writes the statements that were sent so far to the socket.
    pub(super) fn flush(&self) {
        if let Self::Caller(runtime) = self {
            runtime.block_on(tokio::task::yield_now());
        }
    }
}
