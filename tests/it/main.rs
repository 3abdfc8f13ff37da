//! The gateway as its users meet it: the real binary, real sockets.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a test that meets the unexpected fails"
)]

mod ambiguous;
mod attribution;
mod callbacks;
mod clock;
mod contract;
mod corpus;
mod crash;
mod credentials;
mod deadlines;
mod device_list_matching;
mod drain;
mod embedded_sandbox;
mod faults;
mod forward;
mod full_disk;
mod guarantees;
mod journal_dir;
mod keys;
mod licences;
mod limits;
mod outbound_requests;
mod outcome_unknown;
mod overload;
mod partial_requests;
mod power;
mod quarantine;
mod reconcile;
mod refusals;
mod registration;
mod slow;
mod slow_disk;
mod support;
mod telemetry;
