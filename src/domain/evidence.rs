//! The rules by which the results of an operation are recognised.

use crate::domain::{identifier::IdentifierKind, result::DeviceResult};

/// The rules of one operation.
#[derive(Debug)]
pub struct EvidenceRules {
    /// The callback service that carries the results, such as `CarrierService`.
    pub callback_service: &'static str,
    /// The kinds of identifiers that tell devices apart.
    pub identifying_kinds: IdentifyingKinds,
    /// True if the content of a result shows that it belongs to another operation.
    pub is_foreign_result: fn(&DeviceResult) -> bool,
    /// The way to look up missing results.
    pub lookup: LookupMethod,
}

/// The kinds of identifiers that tell the devices of a change apart. Values of other kinds are attributes,
/// which several devices can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentifyingKinds {
    /// One kind.
    Only(IdentifierKind),
    /// Every kind.
    All,
}

/// The way to look up results that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupMethod {
    /// ThingSpace's status of the request, with a status for each device.
    RequestStatus,
    /// ThingSpace's list of the account's devices, with their present service plans.
    DeviceList,
}
