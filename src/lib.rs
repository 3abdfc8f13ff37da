//! A gRPC gateway to Verizon's ThingSpace Connectivity Management API.
//!
//! Each module depends only on modules below it in this list:
//!
//! - [`cli`]: the command line, one file for each subcommand;
//! - [`app`]: wiring and lifecycle;
//! - [`console`]: the web page for operators;
//! - [`grpc`]: the gRPC server;
//! - [`access`]: authentication and permissions of callers;
//! - [`callbacks`]: the HTTP listener for ThingSpace's callbacks;
//! - [`tls`]: TLS of the gRPC port and of the callback listener;
//! - [`connections`]: the open connections of each port, and its limits;
//! - [`background`]: deadlines, lookups of missing results, attribution, registration of the callback URL,
//!   forwarding, retention;
//! - [`dispatch`]: sends a change to ThingSpace and records the response; pauses of changes;
//! - [`watch`]: streams of the stored and new events of a change, a request or an account; resume tokens;
//! - [`thingspace`]: the REST client;
//! - [`spool`]: keeps callbacks on the local disk while the journal cannot store them;
//! - [`journal`]: the durable store of changes, responses and callbacks: one commit for the writes of many
//!   callers;
//! - [`operations`]: one folder for each kind of change: validation, wire format, evidence rules;
//! - [`audit`]: the audit log: who did what, with what outcome;
//! - [`telemetry`]: logs, spans and metrics;
//! - [`config`]: the settings of this program;
//! - [`proto`]: the messages of the API, and their conversion from and to domain types;
//! - [`shares`]: divides limits among callers;
//! - [`domain`]: changes and their states, identifiers, matching, counts, attribution. Pure: no I/O, no
//!   async, no clock;
//! - [`failpoints`]: rules that test builds can break;
//! - `testing`: helpers of unit tests.

pub mod access;
pub mod app;
pub mod audit;
pub mod background;
pub mod callbacks;
pub mod cli;
pub mod config;
pub mod connections;
pub mod console;
pub mod dispatch;
pub mod domain;
pub mod failpoints;
pub mod grpc;
pub mod journal;
pub mod operations;
pub mod proto;
pub mod shares;
pub mod spool;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod thingspace;
pub mod tls;
pub mod watch;
