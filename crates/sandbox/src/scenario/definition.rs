//! The definition of a scenario.

use crate::device_outcome::DeviceOutcome;
use crate::operations::operation::Operation;
use crate::request_outcome::{NotExecutedCause, ResponseKind};

/// A situation that an identifier selects.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The two digits in its identifiers. Never reused.
    pub(crate) number: u8,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) applies_to: AppliesTo,
    pub(crate) effect: ScenarioEffect,
}

/// The operations that a scenario applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppliesTo {
    AllOperations,
    /// Operations whose requests contain service addresses.
    ServiceAddresses,
    /// Operations whose callbacks may contain the `mdn` alone.
    MdnCallbacks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(crate) fn applies_to(&self, operation: &dyn Operation) -> bool {
        match self.applies_to {
            AppliesTo::AllOperations => true,
            AppliesTo::ServiceAddresses => operation.has_service_address(),
            AppliesTo::MdnCallbacks => operation.can_report_mdn_only(),
        }
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
