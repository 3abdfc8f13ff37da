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

use super::inflate::declared_size;
use crate::domain::violation::FieldReason;
use crate::grpc::{
    admission::{
        byte_budget::{ByteBudget, ByteBudgetPool},
        device_count::{DeviceFields, is_within_device_limits},
        inflight_reads::InFlightReads,
        message_reader::{MessageReader, PROGRESS_TIMEOUT},
        slow_reader::{SlowReader, guard_response},
    },
    error::{ApiError, Executed, reason::ErrorReason},
    middleware::into_http_response,
};

/// What all callers together may have under way.
#[derive(Debug, Clone, Copy)]
pub struct ConcurrencyLimits {
    /// Change calls.
    pub inflight_changes: usize,
    /// Bytes of their messages, until a change is made of them.
    pub message_bytes: usize,
    /// Calls that only read.
    pub reads: usize,
    /// Streams: watches above all.
    pub watches: usize,
}

/// The places that are left of it.
pub(crate) struct AdmissionControl {
    changes: MethodClassLimits,
    reads: MethodClassLimits,
    watches: MethodClassLimits,
    /// Probes that are arriving. Nothing else is needed of them.
    probe_reads: Arc<InFlightReads>,
    byte_budgets: ByteBudgetPool,
    max_message: usize,
}

/// The places of one sort of calls: as many may be under way as may be arriving.
struct MethodClassLimits {
    inflight_reads: Arc<InFlightReads>,
    permits: Arc<Semaphore>,
}

/// What is asked of a call, by its path.
enum MethodClass {
    /// It changes something, and is as large as its devices are many.
    Change(DeviceFields),
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
    State(admission): State<Arc<AdmissionControl>>,
    request: Request,
    next: Next,
) -> Response {
    let admitted = match MethodClass::from_path(request.uri().path()) {
        MethodClass::Change(fields) => admission.admit_change(fields, request, next).await,
        MethodClass::Read => admission.admit_read(request, next).await,
        MethodClass::Stream => admission.admit_stream(request, next).await,
        MethodClass::Health => admission.admit_probe(request, next).await,
    };
    admitted.unwrap_or_else(|failure| into_http_response(failure.into_status()))
}

// === impl Budget ===

impl AdmissionControl {
    pub(crate) fn new(limits: ConcurrencyLimits, max_message: usize) -> Self {
        Self {
            changes: MethodClassLimits::new(limits.inflight_changes),
            reads: MethodClassLimits::new(limits.reads),
            watches: MethodClassLimits::new(limits.watches),
            probe_reads: InFlightReads::new(PROBE.2),
            byte_budgets: ByteBudgetPool::new(limits.message_bytes, max_message),
            max_message,
        }
    }

    async fn admit_change(
        &self,
        fields: DeviceFields,
        request: Request,
        next: Next,
    ) -> Result<Response, ApiError> {
        // Whether its key has executed something is not known: it was not read.
        let executed_unknown = |failure: ApiError| failure.with_executed(Executed::Unknown);
        let (mut head, body) = request.into_parts();
        let mut incoming = MessageReader::new(
            body,
            self.changes.inflight_reads.register(),
            PROGRESS_TIMEOUT,
        );
        let announced = incoming.read_header().await.map_err(executed_unknown)?;
        // tonic refuses a message that is too large or has another compression, and does not read it.
        let readable = announced.filter(|announced| {
            let is_known = !announced.is_compressed || is_gzip(&head.headers);
            is_known && announced.length <= self.max_message
        });
        if let Some(announced) = readable {
            let mut byte_budget = self.byte_budgets.budget_for(announced.length);
            let message = incoming
                .message(announced.length, Some(&mut byte_budget))
                .await;
            message.map_err(executed_unknown)?;
            if announced.is_compressed {
                let inflated = self.inflate(&mut incoming, byte_budget).await;
                byte_budget = inflated.map_err(|failure| match failure.reason() {
                    ErrorReason::Throttled => executed_unknown(failure),
                    // No call that such a message repeats was ever accepted.
                    _ => failure.with_executed(Executed::No),
                })?;
                head.headers.remove(GRPC_ENCODING);
            }
            if !is_within_device_limits(incoming.payload(), fields) {
                return Err(too_many_devices().with_executed(Executed::No));
            }
            if let Some(permit) = byte_budget.into_permit() {
                head.extensions.insert(permit);
            }
        }
        // Only now: whoever sends nothing would have the place of one who does.
        let Ok(_place) = self.changes.permits.try_acquire() else {
            return Err(executed_unknown(ApiError::too_many_in_flight(
                "change calls are under way",
            )));
        };
        let request = Request::from_parts(head, incoming.into_body());
        Ok(next.run(request).await)
    }

    /// Decompresses a message that was read with this room. The decompressed message takes its place.
    async fn inflate(
        &self,
        incoming: &mut MessageReader,
        mut byte_budget: ByteBudget,
    ) -> Result<ByteBudget, ApiError> {
        let length = incoming.payload().len();
        let size = declared_size(incoming.payload());
        if size > self.max_message {
            return Err(too_large(self.max_message));
        }
        if self.byte_budgets.is_same_pool(length, size) {
            incoming
                .inflate(size, length, Some(&mut byte_budget))
                .await?;
            return Ok(byte_budget);
        }
        let mut larger = self.byte_budgets.budget_for(size);
        incoming.inflate(size, 0, Some(&mut larger)).await?;
        Ok(larger)
    }

    async fn admit_read(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let stalled = request.extensions().get::<SlowReader>().cloned();
        let request = self.reads.read_small_message(request).await?;
        let Ok(place) = Arc::clone(&self.reads.permits).try_acquire_owned() else {
            return Err(ApiError::too_many_in_flight("reads are under way"));
        };
        Ok(guard_response(
            next.run(request).await,
            Some(place),
            stalled,
        ))
    }

    async fn admit_stream(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let request = match request.uri().path() {
            WATCH_REQUEST_PATH | HEALTH_WATCH_PATH => {
                self.watches.read_small_message(request).await?
            }
            // Reflection's requests are a stream themselves. It has a bound of its own.
            _ => request,
        };
        let Ok(place) = Arc::clone(&self.watches.permits).try_acquire_owned() else {
            return Err(ApiError::too_many_in_flight("streams are open"));
        };
        Ok(guard_response(next.run(request).await, Some(place), None))
    }

    /// Never refuses one that is sent at once: whoever asks would end the gateway.
    async fn admit_probe(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let stalled = request.extensions().get::<SlowReader>().cloned();
        let (max, patience, _) = PROBE;
        let request = read_bounded_message(request, &self.probe_reads, (max, patience)).await?;
        Ok(guard_response(next.run(request).await, None, stalled))
    }
}

// === impl Places ===

impl MethodClassLimits {
    fn new(count: usize) -> Self {
        Self {
            inflight_reads: InFlightReads::new(count),
            permits: Arc::new(Semaphore::new(count)),
        }
    }

    async fn read_small_message(&self, request: Request) -> Result<Request, ApiError> {
        read_bounded_message(
            request,
            &self.inflight_reads,
            (MAX_SMALL_MESSAGE, PROGRESS_TIMEOUT),
        )
        .await
    }
}

/// Reads a call's message, which has to be a small one and has to come soon.
async fn read_bounded_message(
    request: Request,
    arriving: &Arc<InFlightReads>,
    (max, patience): (usize, Duration),
) -> Result<Request, ApiError> {
    let (mut head, body) = request.into_parts();
    let mut incoming = MessageReader::new(body, arriving.register(), patience);
    if let Some(announced) = incoming.read_header().await? {
        if announced.length > max {
            return Err(too_large(max));
        }
        incoming.message(announced.length, None).await?;
        if announced.is_compressed && is_gzip(&head.headers) {
            let size = declared_size(incoming.payload());
            if size > max {
                return Err(too_large(max));
            }
            incoming.inflate(size, 0, None).await?;
            head.headers.remove(GRPC_ENCODING);
        }
    }
    Ok(Request::from_parts(head, incoming.into_body()))
}

/// The header that names the compression of a message.
const GRPC_ENCODING: &str = "grpc-encoding";

fn is_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(GRPC_ENCODING)
        .is_some_and(|name| name == "gzip")
}

fn too_large(max: usize) -> ApiError {
    let why = format!("a message of this call has at most {max} bytes");
    ApiError::new(ErrorReason::MessageTooLarge, why)
}

fn too_many_devices() -> ApiError {
    let why = "are more, or have more identifiers, than any change has";
    ApiError::invalid_field("devices", FieldReason::TooLong, why)
}

const WATCH_REQUEST_PATH: &str = "/thingspace.gateway.v1.GatewayService/WatchRequest";
const HEALTH_WATCH_PATH: &str = "/grpc.health.v1.Health/Watch";

// === impl Sort ===

impl MethodClass {
    fn from_path(path: &str) -> Self {
        if matches!(
            path,
            "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/List"
        ) {
            return Self::Health;
        }
        match path.strip_prefix("/thingspace.gateway.v1.GatewayService/") {
            Some("ChangeEsimPlan") => Self::Change(DeviceFields {
                devices: 5,
                device_ids: None,
            }),
            Some("ChangeFiveGBiPlan") => Self::Change(DeviceFields {
                devices: 5,
                device_ids: Some(1),
            }),
            Some("WatchRequest") | None => Self::Stream,
            Some(_) => Self::Read,
        }
    }
}
