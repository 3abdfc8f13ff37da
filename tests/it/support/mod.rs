//! Shared set-up: gateway processes, a fake ThingSpace, clients, callbacks and faulty disks.

pub mod cli;
pub mod disk;
pub mod env;
pub mod gateway;
pub mod history;
pub mod http;
pub mod ledger;
pub mod preload;
pub mod raw;
pub mod requests;
pub mod secrets;
pub mod thingspace;
pub mod wait;
pub mod webhook;
