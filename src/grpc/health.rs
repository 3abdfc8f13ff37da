//! `grpc.health.v1.Health`, as its protocol says it.

use std::pin::Pin;

use axum::Router;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::health_v1::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
    health_check_response::ServingStatus, health_server,
};
use crate::grpc::{
    error::{ApiError, reason::ErrorReason},
    middleware::with_layers,
};

/// Tells whether the gateway takes calls.
#[derive(Debug, Clone)]
pub struct HealthService {
    serving: watch::Receiver<bool>,
    draining: CancellationToken,
}

/// The names that can be asked about: the server as a whole, its service, and
/// what a kubelet asks. All but the last say the same; that one is always
/// served, since a restart mends neither a full disk nor a drain.
const SERVICES: [&str; 4] = [
    "",
    "thingspace.gateway.v1.GatewayService",
    "readiness",
    LIVENESS,
];
const LIVENESS: &str = "liveness";

// === impl Health ===

impl HealthService {
    /// Health that follows `serving`; `draining` ends the streams.
    pub fn new(serving: watch::Receiver<bool>, draining: CancellationToken) -> Self {
        Self { serving, draining }
    }

    /// The service alone, behind the layers of all others: for a port that
    /// serves other things too.
    pub fn into_router(self) -> Router {
        let service = health_server::HealthServer::new(self);
        let router = Router::new().route_service("/grpc.health.v1.Health/{*method}", service);
        with_layers(router, None, None)
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
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// One open Watch.
struct HealthWatch {
    health: HealthService,
    service: String,
    last: Option<ServingStatus>,
    ended: bool,
}

// === impl Watching ===

impl HealthWatch {
    /// The next status that differs from the last. A service that is not known
    /// has one, and the stream stays open.
    async fn next(&mut self) -> Option<Result<HealthCheckResponse, Status>> {
        loop {
            if self.ended {
                return None;
            }
            let serving = *self.health.serving.borrow_and_update();
            let status = HealthService::status(&self.service, serving);
            if self.last != Some(status) {
                self.last = Some(status);
                return Some(Ok(response(status)));
            }
            if self.health.draining.is_cancelled() {
                self.ended = true;
                let failure = ApiError::new(ErrorReason::Reconnect, "the server is shutting down");
                return Some(Err(failure.into_status()));
            }
            tokio::select! {
                () = self.health.draining.cancelled() => {}
                changed = self.health.serving.changed() => self.ended = changed.is_err(),
            }
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match Self::status(&service, *self.serving.borrow()) {
            ServingStatus::ServiceUnknown => {
                // The protocol wants NOT_FOUND, and every error has a reason.
                let why = "there is no such service";
                Err(ApiError::new(ErrorReason::ChangeNotFound, why).into_status())
            }
            status => Ok(Response::new(response(status))),
        }
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let serving = *self.serving.borrow();
        let statuses = SERVICES
            .iter()
            .map(|service| {
                let status = response(Self::status(service, serving));
                ((*service).to_owned(), status)
            })
            .collect();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watching = HealthWatch {
            health: self.clone(),
            service: request.into_inner().service,
            last: None,
            ended: false,
        };
        let statuses = stream::unfold(watching, |mut watching| async move {
            let status = watching.next().await?;
            Some((status, watching))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
