//! What the tests stand on.

pub mod disk;
pub mod gateway;
pub mod history;
pub mod raw;
pub mod requests;
pub mod sender;
pub mod thingspace;
pub mod webhook;
pub mod wrong_clock;
