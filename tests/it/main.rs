//! Tests of the real binary over real sockets, beside a fake ThingSpace.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a test fails by a panic"
)]

mod access;
mod attack;
mod attribution;
mod audit;
mod callbacks;
mod cli;
mod clock;
mod console;
mod contract;
mod corpus;
mod crash;
mod credentials;
mod docs;
mod embedded_sandbox;
mod faults;
mod forwarding;
mod guarantees;
mod idempotency;
mod journal_backup;
mod journal_dir;
mod journal_move;
mod licences;
mod load;
mod operator;
mod outbound_requests;
mod planted;
mod policy;
mod postgres;
mod power_loss;
mod pressure;
mod quarantine;
mod refusals;
mod registration;
mod service_plan;
mod shared_identity;
mod support;
mod telemetry;
mod tls;
mod web;
