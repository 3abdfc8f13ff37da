//! The gRPC health checking protocol.

use std::{pin::Pin, sync::Arc};

use axum::Router;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    connections::Streamed,
    grpc::{
        error::{ApiError, reason::ErrorReason},
        health_v1::{
            HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
            health_check_response::ServingStatus, health_server,
        },
        middleware::{Layers, with_layers},
    },
};

/// Reports whether the gateway serves calls.
#[derive(Debug, Clone)]
pub struct HealthService {
    serving: watch::Receiver<bool>,
    draining: CancellationToken,
    /// Limits the watches. `None` if admission control limits them.
    watches: Option<Arc<Semaphore>>,
}

/// Maximum number of watches on the admin port, whose connections stay open for them.
const MAX_ADMIN_WATCHES: usize = 64;
/// Maximum size of a request on the admin port in bytes.
const MAX_ADMIN_MESSAGE: usize = 1024;
/// Names of the health service: the server, its service, and the names for a kubelet's probes. [`LIVENESS`] is
/// always SERVING, because a restart repairs neither a full disk nor a drain. The others have the same status.
const SERVICES: [&str; 4] = ["", "thingspace.gateway.v1.GatewayService", "readiness", LIVENESS];
const LIVENESS: &str = "liveness";

impl HealthService {
    /// Follows `serving`. Cancelling `draining` ends the streams.
    pub fn new(serving: watch::Receiver<bool>, draining: CancellationToken) -> Self {
        Self { serving, draining, watches: None }
    }

    /// Returns a router with this service alone, for the admin port. It limits the number of watches and the size of
    /// requests.
    pub fn into_router(mut self) -> Router {
        self.watches = Some(Arc::new(Semaphore::new(MAX_ADMIN_WATCHES)));
        let service = health_server::HealthServer::new(self);
        let service = service.max_decoding_message_size(MAX_ADMIN_MESSAGE);
        let router = Router::new().route_service("/grpc.health.v1.Health/{*method}", service);
        with_layers(router, Layers::default())
    }

    /// Admits a watch, if the number of watches is limited here.
    fn admit_watch(&self) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let Some(watches) = &self.watches else { return Ok(None) };
        Arc::clone(watches).try_acquire_owned().map(Some).map_err(|_none_left| {
            ApiError::overloaded("too many health watches on the admin port; retry later").into()
        })
    }

    fn status(service: &str, serving: bool) -> ServingStatus {
        if !SERVICES.contains(&service) {
            ServingStatus::ServiceUnknown
        } else if serving || service == LIVENESS {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// Waits for a status that differs from `last`. The status of an unknown service never changes.
    async fn next_status(
        &mut self,
        service: &str,
        last: Option<ServingStatus>,
    ) -> Result<Option<ServingStatus>, Status> {
        loop {
            let status = Self::status(service, *self.serving.borrow_and_update());
            if last != Some(status) {
                return Ok(Some(status));
            }
            tokio::select! {
                biased;
                changed = self.serving.changed() => if changed.is_err() {
                    return Ok(None);
                },
                () = self.draining.cancelled() => {
                    let message = "the server is shutting down";
                    return Err(ApiError::new(ErrorReason::Reconnect, message).into());
                }
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match Self::status(&service, *self.serving.borrow()) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("unknown service")),
            status => Ok(Response::new(response(status))),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let serving = *self.serving.borrow();
        let status = |service: &str| (service.to_owned(), response(Self::status(service, serving)));
        let statuses = SERVICES.into_iter().map(status).collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self.admit_watch()?;
        let start = (self.clone(), request.into_inner().service, None, permit);
        let statuses = stream::try_unfold(start, async |(mut health, service, last, permit)| {
            let status = health.next_status(&service, last).await?;
            Ok(status.map(|status| (response(status), (health, service, Some(status), permit))))
        });
        let statuses: Self::WatchStream = Box::pin(statuses);
        let mut response = Response::new(statuses);
        response.extensions_mut().insert(Streamed);
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
