//! Layers around the handlers: admission, errors, deadlines and telemetry of every call.

mod error_details;
mod guard;
mod telemetry;

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};

pub(super) use guard::CallDeadline;

use crate::{
    grpc::admission::concurrency::{AdmissionControl, admit},
    telemetry::Instruments,
};

/// Adds all layers to the services, from the innermost to the outermost. The admin port, which serves only
/// health, needs neither admission control nor telemetry.
pub(super) fn with_layers(
    services: Router,
    admission: Option<AdmissionControl>,
    instruments: Option<Instruments>,
) -> Router {
    let admitted = match admission {
        // Innermost, because the handlers decode messages.
        Some(admission) => services.layer(from_fn_with_state(Arc::new(admission), admit)),
        None => services,
    };
    let completed = admitted
        // The deadline also covers the wait for capacity.
        .layer(from_fn(guard::guard_call))
        // Errors of the layers above and of tonic get their details here.
        .layer(from_fn(error_details::add_error_details));
    match instruments {
        // Outermost, to record the status that the client receives.
        Some(instruments) => {
            completed.layer(from_fn_with_state(instruments, telemetry::record_call))
        }
        None => completed,
    }
}
