//! A command of the writer: a part of a batch, and a reply after the commit.

use tokio::sync::oneshot;

use crate::{
    domain::state::Transition,
    journal::{
        JournalError,
        apply::{self, ApplyError, ApplyTransition, Counts, Keys, StoreCallback, WorkingSet},
        sql::{
            Database, Result,
            tables::{meta, quarantine},
        },
    },
};

/// A command that waits for its commit.
pub(in crate::journal) struct Command {
    pub(in crate::journal) kind: CommandKind,
    /// Approximate number of rows that it writes.
    pub(in crate::journal) rows: usize,
    pub(in crate::journal) action: Box<dyn Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) enum CommandKind {
    Callback,
    /// Allows a POST to be sent: the marker must reach the command before the reply.
    Dispatch,
    Other,
}

pub(in crate::journal) type ReplyReceiver<T> = oneshot::Receiver<Result<T, JournalError>>;

/// The steps of a command in a batch. An error fails the whole batch.
pub(in crate::journal) trait Action: Send {
    /// True if [`modify_tables`](Self::modify_tables) does anything.
    fn has_table_work(&self) -> bool {
        false
    }

    /// Modifies tables that no rule depends on, before the rows of the batch are loaded.
    fn modify_tables(&mut self, _db: &dyn Database, _counts: &mut Counts) -> Result<()> {
        Ok(())
    }

    /// Adds the keys of all rows that [`apply`](Self::apply) may touch.
    fn collect(&self, keys: &mut Keys);

    /// Applies the command to the working set.
    fn apply(&mut self, set: &mut WorkingSet) -> Result<()>;

    /// Sends the reply, once the result of the commit is known.
    fn reply(self: Box<Self>, committed: Result<(), &JournalError>);
}

/// The result of a command until it is sent.
struct Reply<T> {
    result: Option<Result<T, JournalError>>,
    sender: oneshot::Sender<Result<T, JournalError>>,
}

/// A command of `journal::apply`.
struct Applied<C: apply::Command> {
    command: Option<C>,
    reply: Reply<C::Output>,
}

/// A command that only modifies tables.
struct TableCommand<T, F> {
    modify: Option<F>,
    reply: Reply<T>,
}

/// Stores a quarantined callback as a result, and deletes it from the quarantine.
struct Release {
    id: u64,
    store: Applied<StoreCallback>,
}

impl<T> Reply<T> {
    fn new() -> (Self, ReplyReceiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { result: None, sender }, receiver)
    }

    fn send(self, committed: Result<(), &JournalError>) {
        let reply = match committed {
            Ok(()) => self.result.unwrap_or_else(|| Err(JournalError::closed())),
            Err(error) => Err(error.clone()),
        };
        // The caller may have stopped waiting.
        let _ = self.sender.send(reply);
    }
}

impl<C: apply::Command> Action for Applied<C> {
    fn collect(&self, keys: &mut Keys) {
        if let Some(command) = &self.command {
            command.collect(keys);
        }
    }

    fn apply(&mut self, set: &mut WorkingSet) -> Result<()> {
        if let Some(command) = self.command.take() {
            self.reply.result = Some(match command.apply(set) {
                Ok(value) => Ok(value),
                Err(ApplyError::Rejected(error)) => Err(error),
                Err(error) => return Err(error.into()),
            });
        }
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<(), &JournalError>) {
        self.reply.send(committed);
    }
}

impl<T, F> Action for TableCommand<T, F>
where
    T: Send,
    F: FnOnce(&dyn Database, &mut Counts) -> Result<T> + Send,
{
    fn has_table_work(&self) -> bool {
        true
    }

    fn modify_tables(&mut self, db: &dyn Database, counts: &mut Counts) -> Result<()> {
        if let Some(modify) = self.modify.take() {
            self.reply.result = Some(Ok(modify(db, counts)?));
        }
        Ok(())
    }

    fn collect(&self, _: &mut Keys) {}

    fn apply(&mut self, _: &mut WorkingSet) -> Result<()> {
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<(), &JournalError>) {
        self.reply.send(committed);
    }
}

impl Action for Release {
    fn has_table_work(&self) -> bool {
        true
    }

    fn modify_tables(&mut self, db: &dyn Database, counts: &mut Counts) -> Result<()> {
        if !quarantine::delete(db, &mut counts.quarantine_bytes, self.id)? {
            self.store.command = None;
            self.store.reply.result = Some(Err(JournalError::NoSuchCallback));
        }
        Ok(())
    }

    fn collect(&self, keys: &mut Keys) {
        self.store.collect(keys);
    }

    fn apply(&mut self, set: &mut WorkingSet) -> Result<()> {
        self.store.apply(set)
    }

    fn reply(self: Box<Self>, committed: Result<(), &JournalError>) {
        self.store.reply.send(committed);
    }
}

impl Command {
    pub(in crate::journal) fn new<C: apply::Command>(
        kind: CommandKind,
        rows: usize,
        command: C,
    ) -> (Self, ReplyReceiver<C::Output>) {
        let (reply, receiver) = Reply::new();
        let action = Box::new(Applied { command: Some(command), reply });
        (Self { kind, rows, action }, receiver)
    }

    pub(in crate::journal) fn modify_tables<T: Send + 'static>(
        rows: usize,
        modify: impl FnOnce(&dyn Database, &mut Counts) -> Result<T> + Send + 'static,
    ) -> (Self, ReplyReceiver<T>) {
        let (reply, receiver) = Reply::new();
        let action = Box::new(TableCommand { modify: Some(modify), reply });
        (Self { kind: CommandKind::Other, rows, action }, receiver)
    }

    pub(in crate::journal) fn release(
        id: u64,
        store: StoreCallback,
    ) -> (Self, ReplyReceiver<<StoreCallback as apply::Command>::Output>) {
        let (reply, receiver) = Reply::new();
        let action = Box::new(Release { id, store: Applied { command: Some(store), reply } });
        (Self { kind: CommandKind::Other, rows: 1, action }, receiver)
    }

    pub(in crate::journal) fn transition(
        transition: ApplyTransition,
    ) -> (Self, ReplyReceiver<<ApplyTransition as apply::Command>::Output>) {
        let kind = match transition.0.transition {
            Transition::Dispatch { .. } => CommandKind::Dispatch,
            _ => CommandKind::Other,
        };
        Self::new(kind, 1, transition)
    }

    /// A write that only finds out if the journal is writable.
    pub(in crate::journal) fn probe() -> Self {
        Self::modify_tables(0, |db, _| meta::store(db, "probe", &[])).0
    }
}
