//! Layers around the handlers: admission, errors, deadlines and telemetry of every call.

mod error_details;
mod guard;
mod telemetry;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};

pub(super) use guard::CallDeadline;

use crate::{
    access::AccessControl,
    audit::AuditLog,
    grpc::{
        access,
        admission::{
            concurrency::{AdmissionControl, admit},
            method_class::find_method,
        },
        error::{ApiError, Executed},
    },
    telemetry::{Instruments, RpcCall, names},
};

/// The layers of a server. By default, a server has neither access control, admission control, telemetry nor audit.
#[derive(Default)]
pub(super) struct Layers {
    pub(super) access: Option<Arc<AccessControl>>,
    pub(super) admission: Option<AdmissionControl>,
    pub(super) instruments: Option<Instruments>,
    pub(super) audit: AuditLog,
}

/// Adds all layers to the services. They are one layer for axum, which allocates several times for each.
pub(super) fn with_layers(services: Router, layers: Layers) -> Router {
    services.layer(from_fn_with_state(Arc::new(layers), handle_call))
}

async fn handle_call(
    State(layers): State<Arc<Layers>>,
    mut request: Request,
    next: Next,
) -> Response {
    // Clients must not create metric labels: only the names of served methods are used.
    let found = find_method(request.uri().path());
    let method = found.map_or(names::OTHER, |method| method.name);
    let is_change = found.is_some_and(|method| method.is_change());
    // First and last, to record the status that the client receives.
    let call = layers.instruments.as_ref().map(|instruments| {
        let call = RpcCall::begin(instruments, method, request.headers());
        request.extensions_mut().insert(call.span());
        call
    });
    let audit = match found {
        Some(method) => access::start_audit(&layers.audit, method, &mut request),
        None => access::start_audit_of_unknown(&layers.audit, &mut request),
    };
    // The deadline also covers the wait for capacity.
    let response = guard::guard_call(request, method, is_change, |mut request| async {
        // Access and limits are those of the table, so nothing else is served.
        let Some(method) = found else {
            return ApiError::no_such_method().into_response();
        };
        if let Some(control) = &layers.access
            && let Err(error) = access::identify(control, method, &mut request).await
        {
            return error.with_executed(is_change.then_some(Executed::Unknown)).into_response();
        }
        match &layers.admission {
            // Innermost, because the handlers decode messages.
            Some(admission) => admit(admission, request, next).await,
            None => next.run(request).await,
        }
    });
    telemetry::finish_call(response.await, is_change, call, audit)
}
