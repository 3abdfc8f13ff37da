//! The listener: where ThingSpace delivers its callbacks.
//!
//! A callback that was answered with 200 is on disk. Whoever may store is told
//! apart by the secret in the path, by the user name and password in the body,
//! and by the source address; what is refused, is refused with a reason and
//! never half stored. `docs/callbacks.md` has the table of all answers.
//!
//! The room serves HTTP/1.1 only, which is what ThingSpace and proxies speak.

use std::{sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    domain::clock::Clock,
    journal::{Journal, JournalError},
    telemetry::Instruments,
};

mod answer;
mod body;
mod connections;
mod gate;
mod observe;
mod quarantine;
mod report;
mod routes;
mod settings;
mod source;
mod tls;

pub use answer::Refusal;
pub use quarantine::Replayed;
pub use settings::{AllowMode, Pair, SecretSource, Settings, TlsFiles};
pub use tls::TlsError;

use body::Bodies;
use connections::Connections;
use gate::Gate;
use report::Report;
use routes::Room;

/// The callback listener, ready to serve a port that somebody else has bound.
pub struct Listener {
    room: Arc<Room>,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// Callbacks that could not be used, for operators.
#[derive(Clone)]
pub struct Quarantine(Arc<Room>);

// === impl Quarantine ===

impl Quarantine {
    /// Judges a kept callback by the settings as they are now.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub async fn replay(&self, id: u64) -> Result<Replayed, JournalError> {
        self.0.replay(id).await
    }

    /// Judges all of them; answers how many are stored now, and how many still are not.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub async fn replay_all(&self) -> Result<(usize, usize), JournalError> {
        self.0.replay_all().await
    }
}

// === impl Listener ===

impl Listener {
    /// Makes a listener; reads the certificate, if there is to be TLS.
    /// `steady_clock` decides which kept callbacks are old enough to be forgotten.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the certificate or its key cannot be used. Both are
    /// read here only: a renewed certificate needs a restart.
    pub fn new(
        settings: Settings,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        steady_clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Result<Self, TlsError> {
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        Ok(Self {
            room: Arc::new(Room {
                answer_within: settings.answer_within,
                quarantine_bytes: settings.quarantine_bytes,
                bodies: Bodies::new(settings.bodies_bytes),
                forward_most: settings.forward_most,
                gate: Gate::new(settings),
                journal,
                clock,
                steady_clock,
                report: Report::new(instruments),
                tasks: TaskTracker::new(),
            }),
            tls,
        })
    }

    /// What operators do with callbacks that could not be used.
    pub fn quarantine(&self) -> Quarantine {
        Quarantine(Arc::clone(&self.room))
    }

    /// Serves until `shutdown`, then lets requests and appends under way finish
    /// within `grace`. An append that takes longer goes on in the journal.
    pub async fn serve(self, tcp: TcpListener, shutdown: CancellationToken, grace: Duration) {
        Connections::new(self.room, self.tls)
            .serve(tcp, shutdown, grace)
            .await;
    }
}

#[cfg(test)]
mod tests;
