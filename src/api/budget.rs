//! What all callers together may have under way: calls, and the bytes of their messages.
//!
//! A call that is beyond it is refused at once, before anything of it is decoded or stored. The
//! whole budget is in docs/limits.md; devices are counted in `submit`, once they are known.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    layers::respond,
    reason::Reason,
    receive::Incoming,
    status::{Executed, Failure},
    weigh::{Fields, is_bearable},
};

/// What all callers together may have under way.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Change calls.
    pub calls: usize,
    /// Bytes of their messages, until a change is made of them.
    pub message_bytes: usize,
    /// Calls that only read.
    pub reads: usize,
    /// Streams: watches above all.
    pub watches: usize,
}

/// The places that are left of it.
pub(super) struct Budget {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// Change calls that wait for bytes.
    waiting: Semaphore,
    reads: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    max_message: usize,
}

/// Room that a message has until a change is made of it. Handed to the handler with its call.
#[derive(Debug, Clone)]
pub(super) struct Held(#[expect(dead_code, reason = "held")] Arc<OwnedSemaphorePermit>);

/// What is asked of a call, by its path.
enum Sort {
    /// It changes something, and is as large as its devices are many.
    Change(Fields),
    /// One small question and one answer.
    Read,
    /// A stream, or none of ours.
    Stream,
    /// Whether the gateway lives: asked by those who would end it if it did not answer.
    Health,
}

/// A response that has its place until it is sent.
struct Placed {
    body: axum::body::Body,
    _place: OwnedSemaphorePermit,
}

/// How long a call waits for room for its message.
const WAIT: Duration = Duration::from_secs(5);
/// Calls that wait for it at a time: what they have sent already stands in their streams' windows.
pub(super) const MAX_WAITING: u32 = 256;
/// The largest message that asks for something small: names, filters, a token.
pub(super) const MAX_SMALL_MESSAGE: usize = 16 * 1024;
/// When it is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lets a call in if there is room for it.
pub(super) async fn admit(
    State(budget): State<Arc<Budget>>,
    request: Request,
    next: Next,
) -> Response {
    let admitted = match Sort::of(request.uri().path()) {
        Sort::Change(fields) => budget.change(fields, request, next).await,
        Sort::Read => budget.read(request, next).await,
        Sort::Stream => budget.stream(request, next).await,
        Sort::Health => Ok(next.run(request).await),
    };
    admitted.unwrap_or_else(|failure| respond(failure.into_status()))
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(limits: Limits, max_message: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            calls: places(limits.calls),
            bytes: places(limits.message_bytes),
            waiting: Semaphore::new(MAX_WAITING as usize),
            reads: places(limits.reads),
            watches: places(limits.watches),
            max_message,
        }
    }

    async fn change(
        &self,
        fields: Fields,
        request: Request,
        next: Next,
    ) -> Result<Response, Failure> {
        // Whether its key has executed something is not known: it was not read.
        let unread = |failure: Failure| failure.executed(Executed::Unknown);
        let Ok(_place) = Arc::clone(&self.calls).try_acquire_owned() else {
            return Err(unread(too_much("change calls are under way")));
        };
        let (mut head, body) = request.into_parts();
        let mut incoming = Incoming::new(body);
        // tonic refuses what is too large, and does not read on.
        let length = incoming.announced().await.map_err(unread)?;
        if let Some(length) = length.filter(|length| *length <= self.max_message) {
            let held = self.room_for(length).await.map_err(unread)?;
            let message = incoming.message(length).await.map_err(unread)?;
            if !is_bearable(message, fields) {
                return Err(too_many_devices().executed(Executed::No));
            }
            head.extensions.insert(held);
        }
        let request = Request::from_parts(head, incoming.into_body());
        Ok(next.run(request).await)
    }

    /// Waits, not for long, until there is room for so many bytes.
    async fn room_for(&self, length: usize) -> Result<Held, Failure> {
        let count = u32::try_from(length).unwrap_or(u32::MAX);
        if let Ok(held) = Arc::clone(&self.bytes).try_acquire_many_owned(count) {
            return Ok(Held(Arc::new(held)));
        }
        let beyond = || too_much("messages are being read");
        let _waits = self.waiting.try_acquire().map_err(|_full| beyond())?;
        let held = timeout(WAIT, Arc::clone(&self.bytes).acquire_many_owned(count)).await;
        match held {
            Ok(Ok(held)) => Ok(Held(Arc::new(held))),
            Ok(Err(_)) | Err(_) => Err(beyond()),
        }
    }

    async fn read(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let Ok(place) = Arc::clone(&self.reads).try_acquire_owned() else {
            return Err(too_much("reads are under way"));
        };
        let request = small(request).await?;
        Ok(placed(next.run(request).await, place))
    }

    async fn stream(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let Ok(place) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(too_much("streams are open"));
        };
        let request = match request.uri().path() {
            WATCH => small(request).await?,
            // Their services have a bound of their own.
            _ => request,
        };
        Ok(placed(next.run(request).await, place))
    }
}

/// Reads a call's message, which has to be a small one.
async fn small(request: Request) -> Result<Request, Failure> {
    let (head, body) = request.into_parts();
    let mut incoming = Incoming::new(body);
    if let Some(length) = incoming.announced().await? {
        if length > MAX_SMALL_MESSAGE {
            let message = format!("a message of this call has at most {MAX_SMALL_MESSAGE} bytes");
            return Err(Failure::new(Reason::MessageTooLarge, message));
        }
        incoming.message(length).await?;
    }
    Ok(Request::from_parts(head, incoming.into_body()))
}

fn placed(response: Response, place: OwnedSemaphorePermit) -> Response {
    response.map(|body| {
        axum::body::Body::new(Placed {
            body,
            _place: place,
        })
    })
}

fn too_much(what: &str) -> Failure {
    let message = format!("as many {what} as the gateway takes at a time");
    Failure::beyond(&message).retry_after(RETRY_AFTER)
}

fn too_many_devices() -> Failure {
    let why = "are more, or have more identifiers, than any change has";
    Failure::field("devices", why)
}

const WATCH: &str = "/thingspace.gateway.v1.GatewayService/WatchRequest";

// === impl Sort ===

impl Sort {
    fn of(path: &str) -> Self {
        if matches!(
            path,
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/List"
        ) {
            return Self::Health;
        }
        match path.strip_prefix("/thingspace.gateway.v1.GatewayService/") {
            Some("ChangeEsimPlan") => Self::Change(Fields {
                devices: 3,
                ids: None,
            }),
            Some("ChangeFiveGBiPlan") => Self::Change(Fields {
                devices: 4,
                ids: Some(1),
            }),
            Some("WatchRequest") | None => Self::Stream,
            Some(_) => Self::Read,
        }
    }
}

// === impl Placed ===

impl Body for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
