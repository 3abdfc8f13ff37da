//! What the writer is asked to do, and how it answers: after the commit.

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    domain::{
        change::{Change, Transition},
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
    },
    journal::{
        Arrival, Attribution, Bounds, Claim, Detained, Intent, JournalError, Stored, Tried,
        sqlite::tables::{
            apply::{Applied, Batch},
            quarantine::{drop_detained, see_detained},
            schema::{put_note, set_meta},
            trim::trim,
        },
    },
};

pub(super) type Reply<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum Command {
    Claim(Box<Intent>, Reply<Claim>),
    Step(ChangeId, Box<Transition>, Timestamp, Reply<Change>),
    Callback(Box<Arrival>, Reply<Stored>),
    Attribute(
        RequestId,
        Option<Vec<Vec<ReportedId>>>,
        Option<u64>,
        Timestamp,
        Reply<Attribution>,
    ),
    Name(ChangeId, u64, Vec<ReportedId>, Timestamp, Reply<bool>),
    Note(String, Vec<u8>, Reply<()>),
    Detain(Box<Detained>, Bounds, Reply<Option<u64>>),
    Release(u64, Box<Arrival>, Reply<Stored>),
    SeeDetained(u64, Reply<()>),
    DropDetained(u64, Reply<bool>),
    SettleForwards(Vec<(u64, Tried)>, Reply<()>),
    ExpireForwards(Timestamp, Reply<usize>),
    HastenForwards(Timestamp, Reply<usize>),
    Trim(Timestamp, u64, Reply<bool>),
    /// Only finds out whether the journal can write.
    Probe,
}

/// A command's answer, kept until the commit, or until the marker says so too.
pub(super) type Answer = Box<dyn FnOnce(Result<(), &JournalError>) + Send>;

// === impl Command ===

impl Command {
    /// True if a POST leaves once it is answered: the marker must have reached it before.
    pub(super) fn sends(&self) -> bool {
        matches!(self, Self::Step(_, step, ..) if matches!(**step, Transition::Dispatch { .. }))
    }

    /// About how many rows it writes.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Claim(intent, _) => intent.devices.len(),
            // At most 500 of each of five tables: a commit of its own.
            Self::Trim(..) => 2_500,
            Self::Step(..)
            | Self::Callback(..)
            | Self::Name(..)
            | Self::Note(..)
            | Self::Detain(..)
            | Self::Release(..)
            | Self::SeeDetained(..)
            | Self::DropDetained(..) => 1,
            Self::SettleForwards(settled, _) => settled.len(),
            // A slice of a table.
            Self::ExpireForwards(..) | Self::HastenForwards(..) => 100,
            // Reads what may be thousands of results: no callback waits for it.
            Self::Attribute(..) => 2_500,
            Self::Probe => 0,
        }
    }
}

/// Runs one command. `Err` undoes the whole batch.
pub(super) fn execute(
    command: Command,
    connection: &Connection,
    batch: &mut Batch<'_>,
    answers: &mut Vec<Answer>,
) -> rusqlite::Result<()> {
    match command {
        Command::Claim(intent, reply) => answer(batch.claim(&intent), reply, answers),
        Command::Step(change, step, now, reply) => {
            answer(batch.step(change, &step, now), reply, answers)
        }
        Command::Callback(arrival, reply) => answer(batch.store_callback(&arrival), reply, answers),
        Command::Attribute(request, listed, last_result, now, reply) => answer(
            batch.attribute(&request, listed.as_deref(), last_result, now),
            reply,
            answers,
        ),
        Command::Name(change, number, listed, now, reply) => answer(
            batch.name_stray(change, number, &listed, now),
            reply,
            answers,
        ),
        Command::Detain(detained, bounds, reply) => {
            answer(batch.detain(&detained, bounds), reply, answers)
        }
        Command::Release(id, arrival, reply) => answer(batch.release(id, &arrival), reply, answers),
        Command::SeeDetained(last, reply) => {
            answer(see_detained(connection, last).map(Ok), reply, answers)
        }
        Command::DropDetained(id, reply) => {
            answer(drop_detained(connection, id).map(Ok), reply, answers)
        }
        Command::Note(name, value, reply) => {
            answer(put_note(connection, &name, &value).map(Ok), reply, answers)
        }
        Command::SettleForwards(settled, reply) => {
            answer(batch.settle_forwards(&settled).map(Ok), reply, answers)
        }
        Command::ExpireForwards(before, reply) => {
            answer(batch.expire_forwards(before).map(Ok), reply, answers)
        }
        Command::HastenForwards(now, reply) => {
            answer(batch.hasten_forwards(now).map(Ok), reply, answers)
        }
        Command::Trim(before, up_to, reply) => {
            answer(trim(batch, before, up_to).map(Ok), reply, answers)
        }
        Command::Probe => set_meta(connection, "probe", &[]),
    }
}

/// Keeps a command's answer until it is known whether the commit succeeds.
fn answer<T: Send + 'static>(
    applied: Applied<T>,
    reply: Reply<T>,
    answers: &mut Vec<Answer>,
) -> rusqlite::Result<()> {
    let (result, failure) = match applied {
        Ok(result) => (result, None),
        Err(error) => (
            Err(JournalError::Unavailable(error.to_string())),
            Some(error),
        ),
    };
    answers.push(Box::new(move |committed| {
        // A caller that has gone does not need its answer.
        let _gone = reply.send(committed.map_err(Clone::clone).and(result));
    }));
    failure.map_or(Ok(()), Err)
}

/// Answers commands that were not run.
pub(super) fn refuse_all(commands: Vec<Command>, answers: &mut Vec<Answer>) {
    fn refuse<T: Send + 'static>(reply: Reply<T>, answers: &mut Vec<Answer>) {
        answers.push(Box::new(move |committed| {
            let error = committed
                .err()
                .cloned()
                .unwrap_or_else(JournalError::closed);
            let _gone = reply.send(Err(error));
        }));
    }
    for command in commands {
        match command {
            Command::Claim(_, reply) => refuse(reply, answers),
            Command::Step(_, _, _, reply) => refuse(reply, answers),
            Command::Callback(_, reply) => refuse(reply, answers),
            Command::Attribute(_, _, _, _, reply) => refuse(reply, answers),
            Command::Name(_, _, _, _, reply) => refuse(reply, answers),
            Command::Note(_, _, reply) => refuse(reply, answers),
            Command::Detain(_, _, reply) => refuse(reply, answers),
            Command::Release(_, _, reply) => refuse(reply, answers),
            Command::SeeDetained(_, reply) => refuse(reply, answers),
            Command::DropDetained(_, reply) => refuse(reply, answers),
            Command::SettleForwards(_, reply) => refuse(reply, answers),
            Command::ExpireForwards(_, reply) | Command::HastenForwards(_, reply) => {
                refuse(reply, answers)
            }
            Command::Trim(_, _, reply) => refuse(reply, answers),
            Command::Probe => {}
        }
    }
}
