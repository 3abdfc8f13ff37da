//! The definition of a scenario.

use crate::{
    device_outcome::DeviceOutcome,
    operations::operation::{Feature, Operation},
    request_outcome::{NotExecutedCause, ResponseKind},
};

/// A situation that an identifier selects.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The two digits in its identifiers. Never reused.
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// The feature that an operation needs.
    pub(crate) feature: Option<Feature>,
    pub(crate) effect: ScenarioEffect,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum ScenarioEffect {
    /// Sets the outcome of the device.
    Device(DeviceOutcome),
    /// Rejects the request.
    NotExecuted(NotExecutedCause),
    /// Sets the response to the request, which is executed.
    Response(ResponseKind),
    /// Reverses the order of the request's callbacks.
    ReversedOrder,
}

impl Scenario {
    pub(crate) fn applies_to(&self, operation: &Operation) -> bool {
        self.feature.is_none_or(|feature| operation.features.contains(&feature))
    }

    /// Returns the outcome of the device, unless the scenario concerns the request.
    pub(crate) fn device_outcome(&self) -> Option<DeviceOutcome> {
        match self.effect {
            ScenarioEffect::Device(outcome) => Some(outcome),
            ScenarioEffect::NotExecuted(_)
            | ScenarioEffect::Response(_)
            | ScenarioEffect::ReversedOrder => None,
        }
    }
}
