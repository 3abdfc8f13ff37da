//! Layers around the handlers: errors, deadlines and telemetry of every call.

mod catch_panic;
mod deadline;
mod error_details;
mod layers;
pub(super) mod telemetry;

pub(super) use deadline::{CallDeadline, deadline_exceeded};
pub(super) use layers::with_layers;
