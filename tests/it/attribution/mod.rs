//! Attribution of changes with an unknown outcome, of callbacks, and of lookups.

mod device_list_matching;
mod foreign_requests;
mod outcome_unknown;
mod reconcile;
mod shared_callbacks;
