//! Limits the calls in flight, and the memory of their messages.
//!
//! A call first counts towards the limits of its caller, then towards those that all callers share. One that
//! exceeds a limit is rejected before its message is read, or decoded at the latest. `dispatch` limits the devices
//! in flight, once a message is decoded.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    config::LimitsConfig,
    connections::{OpenConnection, Streamed},
    domain::{caller_name::CallerName, violation::FieldReason},
    grpc::{
        admission::{
            byte_budget::ByteBudgetPool,
            caller_usage::{CallerUsage, CallerUsages, caller_of},
            device_count::{count_devices, is_within_device_limits},
            message_reader::{MessageLimits, PART_TIMEOUT, read_message},
            method_class::{MethodClass, find_method},
        },
        error::{ApiError, Executed},
        watch_body::attach_body,
    },
    shares::{CallerShares, SharePermit, SharedLimit},
};

/// The available permits and bytes: those of each caller, and those that all callers share.
pub struct AdmissionControl {
    callers: Arc<CallerUsages>,
    changes: CallLimit,
    reads: CallLimit,
    watches: CallLimit,
    /// Health checks have no caller.
    health_checks: Arc<Semaphore>,
    bytes: ByteBudgetPool,
    max_message_bytes: usize,
}

/// Limit of the calls of one class.
struct CallLimit {
    permits: Arc<SharedLimit>,
    /// Name of the calls in error messages, with the setting.
    name: &'static str,
}

/// Maximum size of a request that is not a change, in bytes.
pub(in crate::grpc) const MAX_SMALL_MESSAGE: usize = 16 * 1024;
/// Maximum number of health checks in flight.
pub(in crate::grpc) const MAX_HEALTH_CHECKS: usize = 2_000;
/// Maximum size of a health check's message in bytes.
const MAX_HEALTH_CHECK_MESSAGE: usize = 1024;
/// Maximum time for a health check's message.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time in which a reflection stream takes requests. Its caller is only checked at the start.
const MAX_REFLECTION_TIME: Duration = Duration::from_secs(60);

/// Admits a call if its caller and its class have a permit, and its message is within the limits.
pub(in crate::grpc) async fn admit(
    admission: &AdmissionControl,
    request: Request,
    next: Next,
) -> Response {
    let class = find_method(request.uri().path()).map(|method| method.class);
    let admitted = match class {
        Some(MethodClass::Change { device_ids_field }) => {
            let caller = admission.caller(&request);
            let admitted = admission.admit_change(&caller, device_ids_field, request, next).await;
            caller.delay_refusal(admitted).await
        }
        Some(MethodClass::Health) => {
            let admitted = admission.admit_health_check(request, next).await;
            admitted.map_err(|error| error.with_executed(None))
        }
        Some(class) => {
            let caller = admission.caller(&request);
            let admitted = admission.admit_small(&caller, class, request, next).await;
            caller.delay_refusal(admitted).await.map_err(|error| error.with_executed(None))
        }
        None => Err(ApiError::no_such_method()),
    };
    admitted.unwrap_or_else(ApiError::into_response)
}

impl AdmissionControl {
    /// Creates the limits. `callers` has those of each caller, and `shares` divides those that all callers share.
    pub fn new(
        limits: &LimitsConfig,
        max_message_bytes: usize,
        callers: Arc<CallerUsages>,
        shares: &CallerShares,
    ) -> Self {
        let limit = |count, name| CallLimit { permits: shares.limit(count, 1), name };
        let changes = "change calls in flight (limits.inflight_changes)";
        Self {
            callers,
            changes: limit(limits.inflight_changes, changes),
            reads: limit(limits.reads, "read calls in flight (limits.reads)"),
            watches: limit(limits.watches, "open streams (limits.watches)"),
            health_checks: Arc::new(Semaphore::new(MAX_HEALTH_CHECKS)),
            bytes: ByteBudgetPool::new(limits.message_bytes, max_message_bytes, shares),
            max_message_bytes,
        }
    }

    fn caller(&self, request: &Request) -> Arc<CallerUsage> {
        self.callers.usage(&caller_of(request.extensions()))
    }

    async fn admit_change(
        &self,
        caller: &Arc<CallerUsage>,
        device_ids_field: Option<u32>,
        request: Request,
        next: Next,
    ) -> Result<Response, ApiError> {
        let _call = caller.begin(false)?;
        let _permit = self.changes.try_acquire(caller.name())?;
        // Last, because a call that is refused otherwise does not count.
        caller.take_change()?;
        let limits = MessageLimits {
            max_bytes: self.max_message_bytes,
            part_timeout: PART_TIMEOUT,
            bytes: Some(self.bytes.of(caller.name())),
        };
        let (request, message) = read_message(request, limits).await?;
        if !is_within_device_limits(&message, device_ids_field) {
            let description = "has too many devices or device identifiers";
            let error = ApiError::invalid_field("devices", FieldReason::TooLong, description);
            return Err(error.with_executed(Executed::No));
        }
        caller.take_devices(|| count_devices(&message))?;
        drop(message);
        Ok(next.run(request).await)
    }

    /// Admits a call whose request is small. Its permits are held until hyper has the last frame of the response,
    /// whose bytes before it fit the window of the client.
    async fn admit_small(
        &self,
        caller: &Arc<CallerUsage>,
        class: MethodClass,
        request: Request,
        next: Next,
    ) -> Result<Response, ApiError> {
        let is_stream = class != MethodClass::Read;
        let call = caller.begin(is_stream)?;
        let limit = if is_stream { &self.watches } else { &self.reads };
        let permit = limit.try_acquire(caller.name());
        // The events of a stream may wait for as long as its connection lives.
        if permit.is_err() && !is_stream {
            close_slowest_reader(&request);
        }
        let permit = permit?;
        let request = match class {
            // A stream of requests. tonic limits the size of each.
            MethodClass::Reflection => request.map(end_reflection),
            _ => read_small(request, MAX_SMALL_MESSAGE, PART_TIMEOUT).await?,
        };
        let mut response = attach_body(next.run(request).await);
        if is_stream {
            response.extensions_mut().insert(Streamed);
        }
        Ok(hold_until_sent(response, (call, permit)))
    }

    async fn admit_health_check(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let Ok(permit) = Arc::clone(&self.health_checks).try_acquire_owned() else {
            close_slowest_reader(&request);
            return Err(overloaded("health checks in flight"));
        };
        let request = read_small(request, MAX_HEALTH_CHECK_MESSAGE, HEALTH_CHECK_TIMEOUT).await?;
        Ok(hold_until_sent(next.run(request).await, permit))
    }
}

impl CallLimit {
    fn try_acquire(&self, caller: &CallerName) -> Result<SharePermit, ApiError> {
        self.permits.try_acquire(caller, 1).ok_or_else(|| overloaded(self.name))
    }
}

fn overloaded(calls: &str) -> ApiError {
    ApiError::overloaded(format!("too many {calls}; retry later"))
}

/// Closes the connection with the most unread responses of the port, which may hold the permits.
fn close_slowest_reader(request: &Request) {
    if let Some(connection) = request.extensions().get::<Arc<OpenConnection>>() {
        connection.close_slowest_reader();
    }
}

/// Holds permits until hyper has the last frame of the response.
fn hold_until_sent(response: Response, permits: impl Send + 'static) -> Response {
    response.map(|body| {
        Body::new(body.inspect_frame(move |_frame| {
            let _held_by_the_body = &permits;
        }))
    })
}

/// Ends the requests of a reflection stream after [`MAX_REFLECTION_TIME`], and with them the stream.
fn end_reflection(requests: Body) -> Body {
    Body::from_stream(requests.into_data_stream().take_until(sleep(MAX_REFLECTION_TIME)))
}

/// Reads a message that needs no bytes of the pool.
async fn read_small(
    request: Request,
    max_bytes: usize,
    part_timeout: Duration,
) -> Result<Request, ApiError> {
    let limits = MessageLimits { max_bytes, part_timeout, bytes: None };
    Ok(read_message(request, limits).await?.0)
}

#[cfg(test)]
mod tests;
