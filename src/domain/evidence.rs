//! The rules by which the results of an operation are recognised.

use crate::domain::{identifier::IdentifierKind, named_enum::named_enum, result::DeviceResult};

named_enum! {
    /// The callback services that carry the results of operations.
    ResultService {
        /// Carries the results of plan changes, except those of eSIM profiles.
        Carrier = "CarrierService",
        /// Carries the results of eSIM profile operations.
        DeviceProfile = "DeviceProfileService",
    }
}

/// The rules by which the results of one operation are recognised.
#[derive(Debug)]
pub struct EvidenceRules {
    /// The callback service that carries the results.
    pub callback_service: ResultService,
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

impl ResultService {
    /// Returns the service with this name, in any letter case. `None` if the service carries no results.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.as_str().eq_ignore_ascii_case(name))
    }
}

impl IdentifyingKinds {
    /// True if values of this kind tell devices apart.
    pub fn includes(self, kind: IdentifierKind) -> bool {
        match self {
            Self::Only(only) => kind == only,
            Self::All => true,
        }
    }
}
