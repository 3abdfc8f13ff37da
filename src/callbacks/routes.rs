//! The callback addresses, and what happens to what is sent there.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    routing::post,
};
use http::Response;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use super::{
    answer::{self, Refusal, Refused},
    body::{self, Arrived, Bodies, Held},
    gate::{Gate, PathProof},
    observe::Kept,
    report::{self, About, Report},
};
use crate::{
    domain::{callback::Callback, clock::Clock, newtypes::CallbackService},
    journal::{ForwardOptions, Journal, JournalError, ReceivedCallback, Stored},
};

/// Bytes that a part of the path may have.
const MAX_SEGMENT: usize = 128;

/// What all requests share.
pub(super) struct Room {
    pub(super) gate: Gate,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) steady_clock: Arc<dyn Clock>,
    pub(super) report: Report,
    pub(super) tasks: TaskTracker,
    pub(super) bodies: Bodies,
    pub(super) answer_within: Duration,
    pub(super) quarantine_bytes: u64,
    pub(super) forward_most: Option<u64>,
}

/// What was read.
enum Read {
    /// A callback that may be stored, and the room that it takes.
    Callback(Box<Callback>, Held),
    /// One that cannot be used, for this reason, and is kept.
    Kept(Refusal),
}

/// Who has connected: each connection puts it into its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The parts of a request's path.
#[derive(Default)]
pub(super) struct Target {
    pub(super) account: Option<String>,
    pub(super) service: String,
    secret: Option<String>,
}

/// The routes.
pub(super) fn router(room: Arc<Room>) -> Router {
    let mut router = Router::new();
    for route in [
        "/callbacks/{service}",
        "/callbacks/{service}/{secret}",
        "/accounts/{account}/callbacks/{service}",
        "/accounts/{account}/callbacks/{service}/{secret}",
    ] {
        router = router.route(
            route,
            post(move |state, parameters, request| arrive(route, state, parameters, request)),
        );
    }
    router
        .fallback(|State(room): State<Arc<Room>>, request| async move {
            room.refuse_unread(Refusal::NoSuchPath, request).await
        })
        .method_not_allowed_fallback(|State(room): State<Arc<Room>>, request| async move {
            room.refuse_unread(Refusal::MethodNotAllowed, request).await
        })
        .with_state(room)
}

async fn arrive(
    route: &'static str,
    State(room): State<Arc<Room>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response<Body> {
    match parameters.ok().and_then(|parts| Target::read(&parts)) {
        Some(target) => room.receive(route, &target, request).await,
        None => room.refuse_unread(Refusal::NoSuchPath, request).await,
    }
}

// === impl Target ===

impl Target {
    /// None when a part is longer than any name.
    fn read(parameters: &RawPathParams) -> Option<Self> {
        let mut target = Self::default();
        for (name, value) in parameters {
            if value.len() > MAX_SEGMENT {
                return None;
            }
            match name {
                "account" => target.account = Some(value.to_owned()),
                "service" => target.service = value.to_owned(),
                _ => target.secret = Some(value.to_owned()),
            }
        }
        Some(target)
    }
}

// === impl Room ===

impl Room {
    async fn receive(
        &self,
        route: &'static str,
        target: &Target,
        request: Request,
    ) -> Response<Body> {
        let deadline = Instant::now() + self.answer_within;
        let (parts, body) = request.into_parts();
        let peer = peer(&parts.extensions);
        let source = self.gate.source(peer, &parts.headers);
        let about = About {
            route,
            service: self.gate.loggable_service(&target.service),
            account: target
                .account
                .as_deref()
                .and_then(|account| self.gate.loggable_account(account)),
            source: source.address,
        };

        let admitted = self.gate.at_arrival(target.secret.as_deref(), source);
        let admitted = admitted
            .map_err(Refused::from)
            .and_then(|proof| self.room_before(deadline).map(|()| proof));
        let proof = match admitted {
            Ok(proof) => proof,
            Err(refused) => return self.refuse_after(refused, body, deadline, about).await,
        };
        let (callback, held) = match self.read(target, proof, body, deadline).await {
            Ok(Read::Callback(callback, held)) => (*callback, held),
            Ok(Read::Kept(reason)) => {
                self.report.kept(reason, about);
                return answer::quarantined();
            }
            Err(refused) => return self.refuse(&refused, about),
        };
        if !source.listed {
            self.report.unlisted(about);
        }
        let arrival = ReceivedCallback {
            callback,
            account: self.account(target),
            service: CallbackService::parse(target.service.as_str()).ok(),
            receive_time: self.clock.now(),
            forwarding: self.forwarding(),
        };
        let request_id = arrival.callback.result.request_id.clone();
        match self.store(arrival, held, deadline).await {
            Ok(stored) => {
                tracing::debug!(
                    route,
                    service = about.service,
                    ?stored,
                    "a callback is stored"
                );
                let mut response = answer::stored(stored);
                response.extensions_mut().insert(Kept(request_id));
                response
            }
            Err(refused) => self.refuse(&refused, about),
        }
    }

    /// Reads a callback and judges it. One that cannot be used is kept where it
    /// came behind the right path secret.
    async fn read(
        &self,
        target: &Target,
        proof: PathProof,
        body: Body,
        deadline: Instant,
    ) -> Result<Read, Refused> {
        let (bytes, held) = match body::read(body, &self.bodies, deadline).await {
            Arrived::Whole(bytes, held) => (bytes, held),
            Arrived::TooLarge { ended } => {
                return Err(Refused {
                    close: !ended,
                    ..Refusal::TooLarge.into()
                });
            }
            Arrived::NoRoom { ended } => {
                return Err(Refused {
                    close: !ended,
                    ..Refused::busy(self.journal.expected_wait())
                });
            }
            Arrived::Incomplete => {
                return Err(Refused {
                    close: true,
                    ..Refusal::Incomplete.into()
                });
            }
        };
        let judged = match Callback::parse(&bytes) {
            Ok(callback) => self
                .gate
                .with_body(&target.service, proof, &callback)
                .map(|()| callback),
            Err(_) => Err(self.gate.unreadable(proof)),
        };
        match judged {
            Ok(callback) => Ok(Read::Callback(Box::new(callback), held)),
            Err(refusal) if proof == PathProof::Shown => {
                self.detain(target, refusal, (bytes, held), deadline)
                    .await?;
                Ok(Read::Kept(refusal))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// How what is stored now is passed on.
    pub(super) fn forwarding(&self) -> Option<ForwardOptions> {
        let now = self.clock.now();
        self.forward_most.map(|most| ForwardOptions {
            max_queued: most,
            now,
        })
    }

    /// Stores a callback on a task of its own: a sender that hangs up, or a
    /// deadline that passes, ends the wait and not the append.
    async fn store(
        &self,
        arrival: ReceivedCallback,
        held: Held,
        deadline: Instant,
    ) -> Result<Stored, Refused> {
        self.room_before(deadline)?;
        let journal = Arc::clone(&self.journal);
        let instruments = self.report.instruments.clone();
        let append = self.tasks.spawn(async move {
            let _until_stored = held;
            let stored = journal.store_callback(arrival).await;
            if let Ok(stored) = stored {
                report::count_stored(&instruments, stored);
            }
            stored
        });
        match timeout_at(deadline, append).await {
            Ok(Ok(Ok(stored))) => Ok(stored),
            Ok(Ok(Err(JournalError::Overloaded))) => {
                Err(Refused::busy(self.journal.expected_wait()))
            }
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "a callback could not be stored");
                Err(Refusal::Unavailable.into())
            }
            // Whether it was stored is not known.
            Ok(Err(_)) | Err(_) => Err(Refusal::Late.into()),
        }
    }

    /// Refuses what the journal cannot store in time anyway: ThingSpace sends
    /// again after a refusal, and gives up waiting after about 4 s.
    fn room_before(&self, deadline: Instant) -> Result<(), Refused> {
        let wait = self.journal.expected_wait();
        if wait > deadline.saturating_duration_since(Instant::now()) {
            return Err(Refused::busy(wait));
        }
        Ok(())
    }

    async fn refuse_unread(&self, refusal: Refusal, request: Request) -> Response<Body> {
        let deadline = Instant::now() + self.answer_within;
        let (parts, body) = request.into_parts();
        let peer = peer(&parts.extensions);
        let about = About {
            route: "(none)",
            service: None,
            account: None,
            source: self.gate.source(peer, &parts.headers).address,
        };
        self.refuse_after(refusal.into(), body, deadline, about)
            .await
    }

    /// Refuses once the body is read, so that the sender sees the answer.
    async fn refuse_after(
        &self,
        mut refused: Refused,
        body: Body,
        deadline: Instant,
        about: About<'_>,
    ) -> Response<Body> {
        refused.close = !body::discard(body, deadline).await;
        self.refuse(&refused, about)
    }

    fn refuse(&self, refused: &Refused, about: About<'_>) -> Response<Body> {
        self.report.refused(refused.refusal, about);
        refused.answer()
    }
}

fn peer(extensions: &http::Extensions) -> IpAddr {
    extensions
        .get::<Peer>()
        .map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0)
}
