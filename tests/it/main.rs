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
mod budget;
mod callbacks;
mod clock;
mod contract;
mod corpus;
mod crash;
mod credentials;
mod deadlines;
mod drain;
mod faults;
mod forward;
mod full_disk;
mod guarantees;
mod half_sent;
mod journal_dir;
mod keys;
mod licences;
mod listener_guard;
mod naming;
mod overload;
mod power;
mod quarantine;
mod reconcile;
mod refusals;
mod sandboxed;
mod slow;
mod slow_disk;
mod support;
mod telemetry;
mod unknown;
mod wire;
