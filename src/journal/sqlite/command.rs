//! A command of the writer: an operation on a batch, and a reply after the commit.

use tokio::sync::oneshot;

use crate::{
    domain::{change::Change, clock::Timestamp, newtypes::ChangeId, state::Transition},
    journal::{
        JournalError,
        sqlite::tables::{
            batch::{CommandError, WriteBatch},
            meta, timeline,
        },
    },
};

/// A command that waits for its commit.
pub(super) struct Command {
    pub(super) kind: CommandKind,
    /// Approximate number of rows that it writes.
    pub(super) rows: usize,
    pub(super) action: Box<dyn Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandKind {
    Callback,
    /// Allows a POST to be sent: the marker must reach the command before the reply.
    Dispatch,
    Other,
}

pub(super) type ReplyReceiver<T> = oneshot::Receiver<Result<T, JournalError>>;

pub(super) trait Action: Send {
    /// Applies the command to a batch. An error fails the whole batch.
    fn apply(&mut self, batch: &mut WriteBatch<'_>) -> rusqlite::Result<()>;

    /// Sends the reply, once the result of the commit is known.
    fn reply(self: Box<Self>, committed: Result<(), &JournalError>);
}

/// An operation until it is applied, then its result until it is sent.
struct Operation<T, F> {
    operation: Option<F>,
    result: Option<Result<T, JournalError>>,
    sender: oneshot::Sender<Result<T, JournalError>>,
}

impl<T, F, E> Action for Operation<T, F>
where
    T: Send,
    F: FnOnce(&mut WriteBatch<'_>) -> Result<T, E> + Send,
    E: Into<CommandError>,
{
    fn apply(&mut self, batch: &mut WriteBatch<'_>) -> rusqlite::Result<()> {
        if let Some(operation) = self.operation.take() {
            self.result = Some(match operation(batch).map_err(Into::into) {
                Ok(value) => Ok(value),
                Err(CommandError::Rejected(error)) => Err(error),
                Err(CommandError::Sqlite(error)) => return Err(error),
            });
        }
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<(), &JournalError>) {
        let reply = match committed {
            Ok(()) => self.result.unwrap_or_else(|| Err(JournalError::closed())),
            Err(error) => Err(error.clone()),
        };
        // The caller may have stopped waiting.
        let _ = self.sender.send(reply);
    }
}

impl Command {
    pub(super) fn new<T: Send + 'static, E: Into<CommandError> + 'static>(
        kind: CommandKind,
        rows: usize,
        operation: impl FnOnce(&mut WriteBatch<'_>) -> Result<T, E> + Send + 'static,
    ) -> (Self, ReplyReceiver<T>) {
        let (sender, receiver) = oneshot::channel();
        let action = Box::new(Operation { operation: Some(operation), result: None, sender });
        (Self { kind, rows, action }, receiver)
    }

    pub(super) fn transition(
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> (Self, ReplyReceiver<Change>) {
        let kind = match transition {
            Transition::Dispatch { .. } => CommandKind::Dispatch,
            _ => CommandKind::Other,
        };
        Self::new(kind, 1, move |batch| timeline::apply_transition(batch, change, &transition, now))
    }

    /// A write that only finds out if the journal is writable.
    pub(super) fn probe() -> Self {
        let write = |batch: &mut WriteBatch<'_>| meta::store(batch.db, "probe", &[]);
        Self::new(CommandKind::Other, 0, write).0
    }
}
