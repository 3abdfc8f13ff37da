//! The append of a callback to the journal or to the spool.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::{
    journal::{JournalError, Stored},
    spool::Appended,
    telemetry::{CallbackOutcome, Instruments},
};

/// Stores a callback and counts it. Dropped before its end, it continues on a task of its own.
pub(super) struct Append<'s> {
    /// `None` once it has ended.
    append: Option<BoxedAppend>,
    /// A callback counts as stored or as rejected, not both.
    is_rejected: bool,
    instruments: &'s Instruments,
    tasks: &'s TaskTracker,
}

type BoxedAppend = Pin<Box<dyn Future<Output = Result<Appended, JournalError>> + Send>>;

impl<'s> Append<'s> {
    pub(super) fn new(
        append: impl Future<Output = Result<Appended, JournalError>> + Send + 'static,
        instruments: &'s Instruments,
        tasks: &'s TaskTracker,
    ) -> Self {
        Self { append: Some(Box::pin(append)), is_rejected: false, instruments, tasks }
    }

    /// Continues on a task of its own, for a callback that is rejected.
    pub(super) fn reject(mut self) {
        self.is_rejected = true;
    }
}

impl Future for Append<'_> {
    type Output = Result<Appended, JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(append) = &mut self.append else {
            // Polled after its end, as no caller does.
            return Poll::Pending;
        };
        let result = ready!(append.as_mut().poll(context));
        self.append = None;
        count(self.instruments, &result, false);
        Poll::Ready(result)
    }
}

impl Drop for Append<'_> {
    fn drop(&mut self) {
        // Without a runtime, the process ends: the callback was not answered, and comes again.
        if let Some(append) = self.append.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let (instruments, is_rejected) = (self.instruments.clone(), self.is_rejected);
            let rest = async move { count(&instruments, &append.await, is_rejected) };
            self.tasks.spawn_on(rest, &runtime);
        }
    }
}

fn count(instruments: &Instruments, result: &Result<Appended, JournalError>, is_rejected: bool) {
    match result {
        Ok(_) if is_rejected => instruments.callback_stored_after_timeout(),
        Ok(appended) => instruments.callback(outcome_of(appended), None),
        Err(_) => {}
    }
}

/// Returns the outcome of a callback that is on disk.
pub(super) fn outcome_of(appended: &Appended) -> CallbackOutcome {
    match appended {
        Appended::Stored(Stored::New(_)) => CallbackOutcome::Stored,
        Appended::Stored(Stored::Duplicate) => CallbackOutcome::Duplicate,
        Appended::Spooled => CallbackOutcome::Spooled,
    }
}
