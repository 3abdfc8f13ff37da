//! A command of the writer: a function on a batch, and a reply after the commit.

use tokio::sync::oneshot;

use crate::journal::error::JournalError;
use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    meta,
};

/// A command that waits for its commit.
pub(super) struct Command {
    pub(super) kind: CommandKind,
    /// Approximate number of rows that it writes.
    pub(super) rows: usize,
    apply: Apply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandKind {
    Callback,
    /// Allows a POST to be sent: the marker must reach the command before the reply.
    Dispatch,
    Other,
}

/// Sends the reply, once the result of the commit is known.
pub(super) type DeferredReply = Box<dyn FnOnce(Result<(), &JournalError>) + Send>;

pub(super) type ReplyReceiver<T> = oneshot::Receiver<Result<T, JournalError>>;

/// Applies the command to a batch, or skips it without one. An error fails the whole batch.
type Apply =
    Box<dyn FnOnce(Option<&mut WriteBatch<'_>>) -> (DeferredReply, rusqlite::Result<()>) + Send>;

impl Command {
    pub(super) fn new<T: Send + 'static>(
        kind: CommandKind,
        rows: usize,
        operation: impl FnOnce(&mut WriteBatch<'_>) -> ApplyResult<T> + Send + 'static,
    ) -> (Self, ReplyReceiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let apply: Apply = Box::new(move |batch| {
            let (result, applied) = match batch.map(operation) {
                Some(Ok(result)) => (Some(result), Ok(())),
                Some(Err(error)) => (None, Err(error)),
                None => (None, Ok(())),
            };
            let reply: DeferredReply = Box::new(move |committed| {
                let reply = match committed {
                    Ok(()) => result.unwrap_or_else(|| Err(JournalError::closed())),
                    Err(error) => Err(error.clone()),
                };
                // The caller may have stopped waiting.
                let _ = sender.send(reply);
            });
            (reply, applied)
        });
        (Self { kind, rows, apply }, receiver)
    }

    /// A write that only finds out if the journal is writable.
    pub(super) fn probe() -> Self {
        let write =
            |batch: &mut WriteBatch<'_>| meta::store(batch.connection, "probe", &[]).map(Ok);
        Self::new(CommandKind::Other, 0, write).0
    }

    /// Applies the command. An error fails the whole batch.
    pub(super) fn apply(self, batch: &mut WriteBatch<'_>) -> (DeferredReply, rusqlite::Result<()>) {
        (self.apply)(Some(batch))
    }

    /// Skips the command, because its batch has failed.
    pub(super) fn skip(self) -> DeferredReply {
        (self.apply)(None).0
    }
}
