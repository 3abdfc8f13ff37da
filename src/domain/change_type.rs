//! The types of changes.

use serde::{Deserialize, Serialize};

use crate::domain::named_enum::named_enum;

named_enum! {
    /// The operation that a change carries out.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    ChangeType {
        /// Changes the service plan of eSIM profiles.
        EsimPlan = "esim_plan",
        /// Changes the service plan of 5G Business Internet devices.
        FiveGBiPlan = "five_g_bi_plan",
        /// Changes the service plan of other devices.
        ServicePlan = "service_plan",
    }
}
