//! Limits the calls in flight, and the memory of their messages.
//!
//! A call that exceeds a limit is rejected before its message is decoded. `dispatch` limits devices, once a
//! message is decoded.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::LimitsConfig,
    connections::{OpenConnection, Streamed},
    domain::violation::FieldReason,
    grpc::{
        admission::{
            byte_budget::ByteBudgetPool,
            device_count::is_within_device_limits,
            message_reader::{MessageLimits, PART_TIMEOUT, read_message},
            method_class::{MethodClass, find_method},
        },
        error::{ApiError, Executed},
        watch_body::attach_body,
    },
};

/// The available permits and bytes, for all clients together.
pub(in crate::grpc) struct AdmissionControl {
    changes: CallLimit,
    reads: CallLimit,
    watches: CallLimit,
    health_checks: CallLimit,
    bytes: ByteBudgetPool,
    max_message_bytes: usize,
}

/// Limit of the calls of one class.
struct CallLimit {
    permits: Arc<Semaphore>,
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

/// Admits a call if its class has a permit and its message is within the limits.
pub(in crate::grpc) async fn admit(
    admission: &AdmissionControl,
    request: Request,
    next: Next,
) -> Response {
    let admitted = match find_method(request.uri().path()) {
        Some((_, MethodClass::Change { device_ids_field })) => {
            admission.admit_change(device_ids_field, request, next).await
        }
        Some((_, class)) => {
            let admitted = admission.admit_small(class, request, next).await;
            admitted.map_err(|error| error.with_executed(None))
        }
        // tonic responds with UNIMPLEMENTED and does not read the message.
        None => Ok(next.run(request).await),
    };
    admitted.unwrap_or_else(ApiError::into_response)
}

impl AdmissionControl {
    pub(in crate::grpc) fn new(limits: &LimitsConfig, max_message_bytes: usize) -> Self {
        let limit = |count, name| CallLimit { permits: Arc::new(Semaphore::new(count)), name };
        let changes = "change calls in flight (limits.inflight_changes)";
        Self {
            changes: limit(limits.inflight_changes, changes),
            reads: limit(limits.reads, "read calls in flight (limits.reads)"),
            watches: limit(limits.watches, "open streams (limits.watches)"),
            health_checks: limit(MAX_HEALTH_CHECKS, "health checks in flight"),
            bytes: ByteBudgetPool::new(limits.message_bytes, max_message_bytes),
            max_message_bytes,
        }
    }

    async fn admit_change(
        &self,
        device_ids_field: Option<u32>,
        request: Request,
        next: Next,
    ) -> Result<Response, ApiError> {
        let _permit = self.changes.try_acquire()?;
        let limits = MessageLimits {
            max_bytes: self.max_message_bytes,
            part_timeout: PART_TIMEOUT,
            pool: Some(&self.bytes),
        };
        let (request, message) = read_message(request, limits).await?;
        if !is_within_device_limits(&message, device_ids_field) {
            let description = "has too many devices or device identifiers";
            let error = ApiError::invalid_field("devices", FieldReason::TooLong, description);
            return Err(error.with_executed(Executed::No));
        }
        drop(message);
        Ok(next.run(request).await)
    }

    /// Admits a call whose request is small. Its permit is held until hyper has the last frame of the response, whose
    /// bytes before it fit the window of the client.
    async fn admit_small(
        &self,
        class: MethodClass,
        request: Request,
        next: Next,
    ) -> Result<Response, ApiError> {
        let (limit, max_bytes, part_timeout) = match class {
            MethodClass::Health => {
                (&self.health_checks, MAX_HEALTH_CHECK_MESSAGE, HEALTH_CHECK_TIMEOUT)
            }
            MethodClass::Read => (&self.reads, MAX_SMALL_MESSAGE, PART_TIMEOUT),
            MethodClass::Watch | MethodClass::Reflection | MethodClass::Change { .. } => {
                (&self.watches, MAX_SMALL_MESSAGE, PART_TIMEOUT)
            }
        };
        let permit = limit.try_acquire();
        // Unread responses may hold the permits. The events of a stream may wait for as long as its connection lives.
        let is_stream = !matches!(class, MethodClass::Health | MethodClass::Read);
        if permit.is_err()
            && !is_stream
            && let Some(connection) = request.extensions().get::<Arc<OpenConnection>>()
        {
            connection.close_slowest_reader();
        }
        let permit = permit?;
        let request = match class {
            // A stream of requests. tonic limits the size of each.
            MethodClass::Reflection => request,
            _ => {
                let limits = MessageLimits { max_bytes, part_timeout, pool: None };
                read_message(request, limits).await?.0
            }
        };
        let mut response = attach_body(next.run(request).await);
        if is_stream {
            response.extensions_mut().insert(Streamed);
        }
        Ok(response.map(|body| {
            Body::new(body.inspect_frame(move |_frame| {
                let _held_by_the_body = &permit;
            }))
        }))
    }
}

impl CallLimit {
    fn try_acquire(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_none_left| {
            ApiError::overloaded(format!("too many {}; retry later", self.name))
        })
    }
}
