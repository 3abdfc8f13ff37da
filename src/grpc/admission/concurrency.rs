//! What all callers together may have under way: calls, and the bytes of their messages.
//!
//! A call that is beyond it is refused at once, before anything of it is decoded or stored. The
//! whole budget is in docs/limits.md; devices are counted in `submit`, once they are known.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::inflate::inflated_size;
use crate::domain::violation::FieldReason;
use crate::grpc::{
    admission::{
        byte_budget::{Room, Rooms},
        device_count::{Fields, is_bearable},
        inflight_reads::Arriving,
        message_reader::{Incoming, PATIENCE},
        slow_reader::{Stalled, placed},
    },
    error::{Executed, Failure, reason::Reason},
    middleware::respond,
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
pub(crate) struct Budget {
    changes: Places,
    reads: Places,
    watches: Places,
    /// Probes that are arriving. Nothing else is needed of them.
    probes: Arc<Arriving>,
    rooms: Rooms,
    max_message: usize,
}

/// The places of one sort of calls: as many may be under way as may be arriving.
struct Places {
    arriving: Arc<Arriving>,
    under_way: Arc<Semaphore>,
}

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

/// The largest message that asks for something small: names, filters, a token.
pub(crate) const MAX_SMALL_MESSAGE: usize = 16 * 1024;
/// The largest that asks whether the gateway lives, how long it may take to arrive, and how many
/// may be arriving.
const PROBE: (usize, Duration, usize) = (1024, Duration::from_secs(2), 1_000);

/// Lets a call in if there is room for it.
pub(crate) async fn admit(
    State(budget): State<Arc<Budget>>,
    request: Request,
    next: Next,
) -> Response {
    let admitted = match Sort::of(request.uri().path()) {
        Sort::Change(fields) => budget.change(fields, request, next).await,
        Sort::Read => budget.read(request, next).await,
        Sort::Stream => budget.stream(request, next).await,
        Sort::Health => budget.probe(request, next).await,
    };
    admitted.unwrap_or_else(|failure| respond(failure.into_status()))
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(limits: Limits, max_message: usize) -> Self {
        Self {
            changes: Places::new(limits.calls),
            reads: Places::new(limits.reads),
            watches: Places::new(limits.watches),
            probes: Arriving::new(PROBE.2),
            rooms: Rooms::new(limits.message_bytes, max_message),
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
        let (mut head, body) = request.into_parts();
        let mut incoming = Incoming::new(body, self.changes.arriving.begin(), PATIENCE);
        let announced = incoming.announced().await.map_err(unread)?;
        // tonic refuses a message that is too large or has another compression, and does not read it.
        let readable = announced.filter(|announced| {
            let is_known = !announced.is_compressed || is_gzip(&head.headers);
            is_known && announced.length <= self.max_message
        });
        if let Some(announced) = readable {
            let mut room = self.rooms.of(announced.length);
            let message = incoming.message(announced.length, Some(&mut room)).await;
            message.map_err(unread)?;
            if announced.is_compressed {
                let inflated = self.inflate(&mut incoming, room).await;
                room = inflated.map_err(|failure| match failure.reason() {
                    Reason::Throttled => unread(failure),
                    // No call that such a message repeats was ever accepted.
                    _ => failure.executed(Executed::No),
                })?;
                head.headers.remove(ENCODING);
            }
            if !is_bearable(incoming.content(), fields) {
                return Err(too_many_devices().executed(Executed::No));
            }
            if let Some(held) = room.held() {
                head.extensions.insert(held);
            }
        }
        // Only now: whoever sends nothing would have the place of one who does.
        let Ok(_place) = self.changes.under_way.try_acquire() else {
            return Err(unread(Failure::too_much("change calls are under way")));
        };
        let request = Request::from_parts(head, incoming.into_body());
        Ok(next.run(request).await)
    }

    /// Decompresses a message that was read with this room. The decompressed message takes its place.
    async fn inflate(&self, incoming: &mut Incoming, mut room: Room) -> Result<Room, Failure> {
        let length = incoming.content().len();
        let size = inflated_size(incoming.content());
        if size > self.max_message {
            return Err(too_large(self.max_message));
        }
        if self.rooms.are_together(length, size) {
            incoming.inflate(size, length, Some(&mut room)).await?;
            return Ok(room);
        }
        let mut larger = self.rooms.of(size);
        incoming.inflate(size, 0, Some(&mut larger)).await?;
        Ok(larger)
    }

    async fn read(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let stalled = request.extensions().get::<Stalled>().cloned();
        let request = self.reads.small(request).await?;
        let Ok(place) = Arc::clone(&self.reads.under_way).try_acquire_owned() else {
            return Err(Failure::too_much("reads are under way"));
        };
        Ok(placed(next.run(request).await, Some(place), stalled))
    }

    async fn stream(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let request = match request.uri().path() {
            WATCH | WATCH_HEALTH => self.watches.small(request).await?,
            // Reflection's requests are a stream themselves. It has a bound of its own.
            _ => request,
        };
        let Ok(place) = Arc::clone(&self.watches.under_way).try_acquire_owned() else {
            return Err(Failure::too_much("streams are open"));
        };
        Ok(placed(next.run(request).await, Some(place), None))
    }

    /// Never refuses one that is sent at once: whoever asks would end the gateway.
    async fn probe(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let stalled = request.extensions().get::<Stalled>().cloned();
        let (max, patience, _) = PROBE;
        let request = small(request, &self.probes, (max, patience)).await?;
        Ok(placed(next.run(request).await, None, stalled))
    }
}

// === impl Places ===

impl Places {
    fn new(count: usize) -> Self {
        Self {
            arriving: Arriving::new(count),
            under_way: Arc::new(Semaphore::new(count)),
        }
    }

    async fn small(&self, request: Request) -> Result<Request, Failure> {
        small(request, &self.arriving, (MAX_SMALL_MESSAGE, PATIENCE)).await
    }
}

/// Reads a call's message, which has to be a small one and has to come soon.
async fn small(
    request: Request,
    arriving: &Arc<Arriving>,
    (max, patience): (usize, Duration),
) -> Result<Request, Failure> {
    let (mut head, body) = request.into_parts();
    let mut incoming = Incoming::new(body, arriving.begin(), patience);
    if let Some(announced) = incoming.announced().await? {
        if announced.length > max {
            return Err(too_large(max));
        }
        incoming.message(announced.length, None).await?;
        if announced.is_compressed && is_gzip(&head.headers) {
            let size = inflated_size(incoming.content());
            if size > max {
                return Err(too_large(max));
            }
            incoming.inflate(size, 0, None).await?;
            head.headers.remove(ENCODING);
        }
    }
    Ok(Request::from_parts(head, incoming.into_body()))
}

/// The header that names the compression of a message.
const ENCODING: &str = "grpc-encoding";

fn is_gzip(headers: &HeaderMap) -> bool {
    headers.get(ENCODING).is_some_and(|name| name == "gzip")
}

fn too_large(max: usize) -> Failure {
    let why = format!("a message of this call has at most {max} bytes");
    Failure::new(Reason::MessageTooLarge, why)
}

fn too_many_devices() -> Failure {
    let why = "are more, or have more identifiers, than any change has";
    Failure::field("devices", FieldReason::TooLong, why)
}

const WATCH: &str = "/thingspace.gateway.v1.GatewayService/WatchRequest";
const WATCH_HEALTH: &str = "/grpc.health.v1.Health/Watch";

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
                devices: 5,
                ids: None,
            }),
            Some("ChangeFiveGBiPlan") => Self::Change(Fields {
                devices: 5,
                ids: Some(1),
            }),
            Some("WatchRequest") | None => Self::Stream,
            Some(_) => Self::Read,
        }
    }
}
