//! The types of changes.

use serde::{Deserialize, Serialize};

/// Defines `ChangeType` together with the list of its values, so that none can be missing there.
macro_rules! change_types {
    ($( $(#[$doc:meta])* $name:ident, )+) => {
        /// The operation that a change carries out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ChangeType {
            $( $(#[$doc])* $name, )+
        }

        impl ChangeType {
            /// All types.
            pub const ALL: &[Self] = &[$( Self::$name, )+];
        }
    };
}

change_types! {
    /// Changes the service plan of eSIM profiles.
    EsimPlan,
    /// Changes the service plan of 5G Business Internet devices.
    FiveGBiPlan,
    /// Changes the service plan of other devices.
    ServicePlan,
}
