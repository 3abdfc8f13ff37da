//! The one thread that writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    checkpoint::{self, Checkpoints},
    command::{Answer, Command, Reply, execute, refuse_all},
};
use crate::{
    domain::{
        change::{Change, Step},
        clock::Timestamp,
        names::ChangeId,
    },
    journal::{
        Arrival, Claim, Intent, JournalError, Observer, Reservation, Stored, tables::apply::Batch,
    },
};

/// Callbacks that may wait at a time; more are refused at arrival.
const CALLBACK_LANE: usize = 16_384;
/// Steps of changes that may wait at a time; more wait outside.
const CHANGE_LANE: usize = 1_024;
/// Answers of ThingSpace that may be awaited at a time: so many POSTs, each with
/// a place in this lane. It is a lane of its own because whoever holds a place
/// in it has yet to pass through the lane of changes.
const ANSWER_LANE: usize = 256;
/// Callbacks that one commit takes at most.
const CALLBACKS_PER_COMMIT: usize = 512;
/// Rows of other commands that one commit takes at most. A larger command, a
/// change of thousands of devices, is a commit of its own: no callback waits
/// for it that came before.
const ROWS_PER_COMMIT: usize = 1_000;

/// How often a journal that cannot write tries whether it can again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Rows after which the write-ahead log is worth moving: some MiB.
const ROWS_PER_CHECKPOINT: usize = 1_000;

/// Hands commands to the writer's thread. Callbacks have a lane of their own,
/// and go first.
pub(super) struct Writer {
    lanes: Mutex<Option<Lanes>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Lanes {
    callbacks: mpsc::Sender<Command>,
    answers: mpsc::Sender<Command>,
    changes: mpsc::Sender<Command>,
}

#[derive(Default)]
struct Shared {
    observers: RwLock<Vec<Arc<dyn Observer>>>,
    waiting_callbacks: AtomicUsize,
    /// How long one callback took lately, its share of the commit included.
    nanos_per_callback: AtomicU64,
    failing: AtomicBool,
}

struct Reserved(mpsc::OwnedPermit<Command>);

// === impl Writer ===

impl Writer {
    pub(super) fn start(connection: Connection, checkpoints: Connection) -> Self {
        let (callbacks, callback_lane) = mpsc::channel(CALLBACK_LANE);
        let (answers, answer_lane) = mpsc::channel(ANSWER_LANE);
        let (changes, change_lane) = mpsc::channel(CHANGE_LANE);
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            connection,
            checkpoints: Checkpoints::start(checkpoints),
            callback_lane,
            answer_lane,
            change_lane,
            deferred: None,
            shared: Arc::clone(&shared),
            rows_since_checkpoint: 0,
        };
        let thread = thread::Builder::new().name("journal-writer".into());
        let thread = match thread.spawn(move || worker.run()) {
            Ok(thread) => Some(thread),
            Err(error) => {
                // Every call fails from here on, since the lanes are closed.
                tracing::error!(%error, "the journal has no writer thread");
                None
            }
        };
        Self {
            lanes: Mutex::new(Some(Lanes {
                callbacks,
                answers,
                changes,
            })),
            shared,
            thread: Mutex::new(thread),
        }
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.shared.observers.write().push(observer);
    }

    pub(super) async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        self.change_command(|reply| Command::Claim(Box::new(intent), reply))
            .await
    }

    pub(super) async fn step(
        &self,
        change: ChangeId,
        step: Step,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.change_command(|reply| Command::Step(change, Box::new(step), now, reply))
            .await
    }

    pub(super) async fn trim(&self, before: Timestamp) -> Result<bool, JournalError> {
        self.change_command(|reply| Command::Trim(before, reply))
            .await
    }

    pub(super) async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        let lane = self.lanes()?.answers;
        let permit = lane
            .reserve_owned()
            .await
            .map_err(|_| JournalError::closed())?;
        Ok(Box::new(Reserved(permit)))
    }

    pub(super) async fn store_callback(&self, arrival: Arrival) -> Result<Stored, JournalError> {
        let (reply, answer) = oneshot::channel();
        let lane = self.lanes()?.callbacks;
        let command = Command::Callback(Box::new(arrival), reply);
        self.shared
            .waiting_callbacks
            .fetch_add(1, Ordering::Relaxed);
        if let Err(error) = lane.try_send(command) {
            self.shared
                .waiting_callbacks
                .fetch_sub(1, Ordering::Relaxed);
            return Err(match error {
                mpsc::error::TrySendError::Full(_) => JournalError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => JournalError::closed(),
            });
        }
        answer.await.map_err(|_| JournalError::closed())?
    }

    pub(super) fn expected_wait(&self) -> Duration {
        let waiting = self.shared.waiting_callbacks.load(Ordering::Relaxed);
        let each = self.shared.nanos_per_callback.load(Ordering::Relaxed);
        Duration::from_nanos(each.saturating_mul(u64::try_from(waiting).unwrap_or(u64::MAX)))
    }

    pub(super) fn is_writable(&self) -> bool {
        let lanes = self.lanes.lock();
        // A writer that has ended, for whatever reason, takes nothing more.
        let is_open = lanes
            .as_ref()
            .is_some_and(|lanes| !lanes.callbacks.is_closed());
        is_open && !self.shared.failing.load(Ordering::Relaxed)
    }

    pub(super) async fn close(&self) {
        self.lanes.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("the journal's writer did not end well");
            }
        }
    }

    async fn change_command<T>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, JournalError> {
        let (reply, answer) = oneshot::channel();
        let lane = self.lanes()?.changes;
        lane.send(command(reply))
            .await
            .map_err(|_| JournalError::closed())?;
        drop(lane);
        answer.await.map_err(|_| JournalError::closed())?
    }

    fn lanes(&self) -> Result<Lanes, JournalError> {
        self.lanes.lock().clone().ok_or_else(JournalError::closed)
    }
}

// === impl Reserved ===

#[async_trait]
impl Reservation for Reserved {
    async fn step(
        self: Box<Self>,
        change: ChangeId,
        step: Step,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Command::Step(change, Box::new(step), now, reply));
        answer.await.map_err(|_| JournalError::closed())?
    }
}

/// The writer's thread.
struct Worker {
    connection: Connection,
    checkpoints: Checkpoints,
    callback_lane: mpsc::Receiver<Command>,
    answer_lane: mpsc::Receiver<Command>,
    change_lane: mpsc::Receiver<Command>,
    /// A large command that waits for its own commit.
    deferred: Option<Command>,
    shared: Arc<Shared>,
    rows_since_checkpoint: usize,
}

// === impl Worker ===

impl Worker {
    fn run(mut self) {
        // A runtime of its own, only to wait on two lanes at once.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the journal's writer cannot start"),
        };
        while let Some(first) = runtime.block_on(self.next()) {
            let commands = self.gather(first);
            let callbacks = commands
                .iter()
                .filter(|command| matches!(command, Command::Callback(..)))
                .count();
            let rows = commands.iter().map(Command::rows).sum();
            let started = Instant::now();
            self.commit(commands);
            self.note_rate(callbacks, started.elapsed());
            self.bound_log(rows);
        }
        if let Err(error) = checkpoint::checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the journal's last checkpoint failed");
        }
    }

    /// The next command; `None` once all lanes are closed and empty.
    async fn next(&mut self) -> Option<Command> {
        if let Some(deferred) = self.deferred.take() {
            return Some(deferred);
        }
        let failing = self.shared.failing.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            // A journal that cannot write is given nothing to write: nobody
            // would ever learn that it can again.
            () = tokio::time::sleep(PROBE_INTERVAL), if failing => Some(Command::Probe),
            Some(command) = self.callback_lane.recv() => Some(command),
            Some(command) = self.answer_lane.recv() => Some(command),
            Some(command) = self.change_lane.recv() => Some(command),
            else => None,
        }
    }

    /// What is committed together: a large command alone; otherwise all that is
    /// waiting, within bounds. Callbacks go first, and never so many that the
    /// others starve.
    fn gather(&mut self, first: Command) -> Vec<Command> {
        let mut rows = first.rows();
        let mut commands = vec![first];
        if rows > ROWS_PER_COMMIT {
            return commands;
        }
        let callbacks = std::iter::from_fn(|| self.callback_lane.try_recv().ok());
        commands.extend(callbacks.take(CALLBACKS_PER_COMMIT));
        for lane in [&mut self.answer_lane, &mut self.change_lane] {
            while rows < ROWS_PER_COMMIT
                && let Ok(command) = lane.try_recv()
            {
                rows += command.rows().max(1);
                if command.rows() > ROWS_PER_COMMIT {
                    self.deferred = Some(command);
                    return commands;
                }
                commands.push(command);
            }
        }
        commands
    }

    /// Runs commands in one transaction, and answers them after its sync.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut answers: Vec<Answer> = Vec::with_capacity(commands.len());
        let outcome = self.transact(commands, &mut answers);
        let result = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the journal could not commit");
                Err(JournalError::Unavailable(error.to_string()))
            }
        };
        self.shared
            .failing
            .store(result.is_err(), Ordering::Relaxed);
        for answer in answers {
            answer(result.as_ref().copied());
        }
    }

    fn transact(
        &mut self,
        commands: Vec<Command>,
        answers: &mut Vec<Answer>,
    ) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(error) => {
                refuse_all(commands, answers);
                return Err(error);
            }
        };
        let mut batch = Batch::new(&transaction);
        let mut failure = None;
        for command in commands {
            if failure.is_some() {
                refuse_all(vec![command], answers);
                continue;
            }
            failure = execute(command, &transaction, &mut batch, answers).err();
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let touched = batch.finish()?;
        transaction.commit()?;
        for observer in self.shared.observers.read().iter() {
            observer.committed(&touched);
        }
        Ok(())
    }

    fn note_rate(&self, callbacks: usize, took: Duration) {
        if callbacks == 0 {
            return;
        }
        self.shared
            .waiting_callbacks
            .fetch_sub(callbacks, Ordering::Relaxed);
        let nanos = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let each = nanos(took.as_nanos() / callbacks as u128);
        // A lone callback pays for a whole commit, which says nothing of a
        // queue's rate: weigh by size.
        let before = self.shared.nanos_per_callback.load(Ordering::Relaxed);
        let weight = u64::try_from(callbacks.min(64)).unwrap_or(64);
        let now = (before.saturating_mul(64 - weight) + each.saturating_mul(weight)) / 64;
        self.shared.nanos_per_callback.store(now, Ordering::Relaxed);
    }

    /// Keeps the write-ahead log short, as a rule without waiting.
    fn bound_log(&mut self, rows: usize) {
        self.rows_since_checkpoint += rows;
        if self.rows_since_checkpoint < ROWS_PER_CHECKPOINT {
            return;
        }
        self.rows_since_checkpoint = 0;
        self.checkpoints.ask();
        if self.checkpoints.log_is_too_long()
            && let Err(error) = checkpoint::checkpoint(&self.connection, "RESTART")
        {
            tracing::warn!(%error, "the journal's checkpoint failed");
        }
    }
}
