//! What the writer is asked to do, and how it answers: after the commit.

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::Transition,
    },
    journal::{
        Attribution, Claim, ForwardOutcome, Intent, JournalError, QuarantineLimits,
        QuarantinedCallback, ReceivedCallback, Stored,
        sqlite::tables::{
            apply::{ApplyResult, WriteBatch},
            quarantine::{drop_quarantined, mark_reviewed},
            schema::{put_kv, set_meta},
            trim::trim,
        },
    },
};

pub(super) type ReplySender<T> = oneshot::Sender<Result<T, JournalError>>;

pub(super) enum Command {
    Claim(Box<Intent>, ReplySender<Claim>),
    Transition(ChangeId, Box<Transition>, Timestamp, ReplySender<Change>),
    Callback(Box<ReceivedCallback>, ReplySender<Stored>),
    Attribute(
        RequestId,
        Option<Vec<Vec<ReportedId>>>,
        Option<u64>,
        Timestamp,
        ReplySender<Attribution>,
    ),
    ResolveUnmatched(ChangeId, u64, Vec<ReportedId>, Timestamp, ReplySender<bool>),
    PutKv(String, Vec<u8>, ReplySender<()>),
    Quarantine(
        Box<QuarantinedCallback>,
        QuarantineLimits,
        ReplySender<Option<u64>>,
    ),
    ReleaseQuarantined(u64, Box<ReceivedCallback>, ReplySender<Stored>),
    MarkQuarantinedReviewed(u64, ReplySender<()>),
    DropQuarantined(u64, ReplySender<bool>),
    RecordForwardOutcomes(Vec<(u64, ForwardOutcome)>, ReplySender<()>),
    ExpireForwards(Timestamp, ReplySender<usize>),
    RescheduleForwards(Timestamp, ReplySender<usize>),
    Trim(Timestamp, u64, ReplySender<bool>),
    /// Only finds out whether the journal can write.
    Probe,
}

/// A command's answer, kept until the commit, or until the marker says so too.
pub(super) type DeferredReply = Box<dyn FnOnce(Result<(), &JournalError>) + Send>;

// === impl Command ===

impl Command {
    /// True if a POST leaves once it is answered: the marker must have reached it before.
    pub(super) fn is_dispatch(&self) -> bool {
        matches!(self, Self::Transition(_, step, ..) if matches!(**step, Transition::Dispatch { .. }))
    }

    /// About how many rows it writes.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Claim(intent, _) => intent.devices.len(),
            // At most 500 of each of five tables: a commit of its own.
            Self::Trim(..) => 2_500,
            Self::Transition(..)
            | Self::Callback(..)
            | Self::ResolveUnmatched(..)
            | Self::PutKv(..)
            | Self::Quarantine(..)
            | Self::ReleaseQuarantined(..)
            | Self::MarkQuarantinedReviewed(..)
            | Self::DropQuarantined(..) => 1,
            Self::RecordForwardOutcomes(settled, _) => settled.len(),
            // A slice of a table.
            Self::ExpireForwards(..) | Self::RescheduleForwards(..) => 100,
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
    batch: &mut WriteBatch<'_>,
    answers: &mut Vec<DeferredReply>,
) -> rusqlite::Result<()> {
    match command {
        Command::Claim(intent, reply) => defer_reply(batch.claim(&intent), reply, answers),
        Command::Transition(change, step, now, reply) => {
            defer_reply(batch.apply_transition(change, &step, now), reply, answers)
        }
        Command::Callback(arrival, reply) => {
            defer_reply(batch.store_callback(&arrival), reply, answers)
        }
        Command::Attribute(request, listed, last_result, now, reply) => defer_reply(
            batch.attribute(&request, listed.as_deref(), last_result, now),
            reply,
            answers,
        ),
        Command::ResolveUnmatched(change, number, listed, now, reply) => defer_reply(
            batch.resolve_unmatched_result(change, number, &listed, now),
            reply,
            answers,
        ),
        Command::Quarantine(detained, bounds, reply) => {
            defer_reply(batch.quarantine(&detained, bounds), reply, answers)
        }
        Command::ReleaseQuarantined(id, arrival, reply) => {
            defer_reply(batch.release_quarantined(id, &arrival), reply, answers)
        }
        Command::MarkQuarantinedReviewed(last, reply) => {
            defer_reply(mark_reviewed(connection, last).map(Ok), reply, answers)
        }
        Command::DropQuarantined(id, reply) => {
            defer_reply(drop_quarantined(connection, id).map(Ok), reply, answers)
        }
        Command::PutKv(name, value, reply) => {
            defer_reply(put_kv(connection, &name, &value).map(Ok), reply, answers)
        }
        Command::RecordForwardOutcomes(settled, reply) => defer_reply(
            batch.record_forward_outcomes(&settled).map(Ok),
            reply,
            answers,
        ),
        Command::ExpireForwards(before, reply) => {
            defer_reply(batch.expire_forwards(before).map(Ok), reply, answers)
        }
        Command::RescheduleForwards(now, reply) => {
            defer_reply(batch.reschedule_forwards(now).map(Ok), reply, answers)
        }
        Command::Trim(before, up_to, reply) => {
            defer_reply(trim(batch, before, up_to).map(Ok), reply, answers)
        }
        Command::Probe => set_meta(connection, "probe", &[]),
    }
}

/// Keeps a command's answer until it is known whether the commit succeeds.
fn defer_reply<T: Send + 'static>(
    applied: ApplyResult<T>,
    reply: ReplySender<T>,
    answers: &mut Vec<DeferredReply>,
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
pub(super) fn fail_all(commands: Vec<Command>, answers: &mut Vec<DeferredReply>) {
    fn refuse<T: Send + 'static>(reply: ReplySender<T>, answers: &mut Vec<DeferredReply>) {
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
            Command::Transition(_, _, _, reply) => refuse(reply, answers),
            Command::Callback(_, reply) => refuse(reply, answers),
            Command::Attribute(_, _, _, _, reply) => refuse(reply, answers),
            Command::ResolveUnmatched(_, _, _, _, reply) => refuse(reply, answers),
            Command::PutKv(_, _, reply) => refuse(reply, answers),
            Command::Quarantine(_, _, reply) => refuse(reply, answers),
            Command::ReleaseQuarantined(_, _, reply) => refuse(reply, answers),
            Command::MarkQuarantinedReviewed(_, reply) => refuse(reply, answers),
            Command::DropQuarantined(_, reply) => refuse(reply, answers),
            Command::RecordForwardOutcomes(_, reply) => refuse(reply, answers),
            Command::ExpireForwards(_, reply) | Command::RescheduleForwards(_, reply) => {
                refuse(reply, answers)
            }
            Command::Trim(_, _, reply) => refuse(reply, answers),
            Command::Probe => {}
        }
    }
}
