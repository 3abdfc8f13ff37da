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
    background::forwarder_id,
    domain::clock::Clock,
    journal::{Journal, JournalError},
    telemetry::Instruments,
};

mod auth;
mod body;
mod callback_log;
mod client_ip;
mod quarantine;
mod response;
mod routes;
mod server;
mod settings;
mod telemetry;
mod tls;

pub use quarantine::ReplayOutcome;
pub use response::CallbackRefusal;
pub use settings::{AllowMode, CallbackCredentials, CallbackSettings, SecretSource, TlsFiles};
pub use tls::TlsError;

use auth::Authenticator;
use body::BodyBudget;
use callback_log::CallbackLog;
use routes::AppState;
use server::CallbackServer;

/// The callback listener, ready to serve a port that somebody else has bound.
pub struct CallbackListener {
    state: Arc<AppState>,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

/// Callbacks that could not be used, for operators.
#[derive(Clone)]
pub struct Quarantine(Arc<AppState>);

// === impl Quarantine ===

impl Quarantine {
    /// Judges a kept callback by the settings as they are now.
    ///
    /// # Errors
    ///
    /// What the journal says.
    pub async fn replay(&self, id: u64) -> Result<ReplayOutcome, JournalError> {
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

impl CallbackListener {
    /// Makes a listener; reads the certificate, if there is to be TLS.
    /// `steady_clock` decides which kept callbacks are old enough to be forgotten.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the certificate or its key cannot be used. Both are
    /// read here only: a renewed certificate needs a restart.
    pub fn new(
        settings: CallbackSettings,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        steady_clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Result<Self, TlsError> {
        let tls = settings.tls.as_ref().map(tls::acceptor).transpose()?;
        Ok(Self {
            state: Arc::new(AppState {
                response_timeout: settings.response_timeout,
                quarantine_bytes: settings.quarantine_max_bytes,
                body_budget: BodyBudget::new(settings.max_inflight_body_bytes),
                max_queued_forwards: settings.max_queued_forwards,
                authenticator: Authenticator::new(settings),
                forwarder_id: forwarder_id(&*journal),
                journal,
                clock,
                steady_clock,
                log: CallbackLog::new(instruments),
                tasks: TaskTracker::new(),
            }),
            tls,
        })
    }

    /// What operators do with callbacks that could not be used.
    pub fn quarantine(&self) -> Quarantine {
        Quarantine(Arc::clone(&self.state))
    }

    /// Serves until `shutdown`, then lets requests and appends under way finish
    /// within `grace`. An append that takes longer goes on in the journal.
    pub async fn serve(self, tcp: TcpListener, shutdown: CancellationToken, grace: Duration) {
        CallbackServer::new(self.state, self.tls)
            .serve(tcp, shutdown, grace)
            .await;
    }
}

#[cfg(test)]
mod tests;
