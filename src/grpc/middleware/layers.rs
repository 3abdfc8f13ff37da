//! The order of the layers.

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};

use crate::grpc::{
    admission::concurrency::{AdmissionControl, admit},
    middleware::{
        catch_panic::catch_panic,
        deadline::enforce_deadline,
        error_details::add_error_details,
        telemetry::{CallTelemetry, record_call},
    },
};

/// Adds all layers to the services, from the innermost to the outermost. The admin port, which serves only
/// health, needs neither admission control nor telemetry.
pub(in crate::grpc) fn with_layers(
    services: Router,
    admission: Option<AdmissionControl>,
    telemetry: Option<CallTelemetry>,
) -> Router {
    let admitted = match admission {
        // Innermost, because the handlers decode messages.
        Some(admission) => services.layer(from_fn_with_state(Arc::new(admission), admit)),
        None => services,
    };
    let completed = admitted
        // The deadline also covers the wait for capacity.
        .layer(from_fn(enforce_deadline))
        // A panic ends one call, not the connection.
        .layer(from_fn(catch_panic))
        // Errors of the layers above and of tonic get their details here.
        .layer(from_fn(add_error_details));
    match telemetry {
        // Outermost, to record the status that the client receives.
        Some(telemetry) => completed.layer(from_fn_with_state(Arc::new(telemetry), record_call)),
        None => completed,
    }
}
