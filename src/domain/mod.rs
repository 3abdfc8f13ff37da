//! What the gateway knows about plan changes, without any I/O.
//!
//! Nothing here is async, reads a clock, or touches a socket or a file, so
//! every rule can be tested by calling it.

pub mod attribution;
pub mod backoff;
pub mod callback;
pub mod change;
pub mod clock;
mod content;
pub mod draft;
pub mod esim;
pub mod five_g_bi;
pub mod identifier;
pub mod matching;
pub mod names;
pub mod place_of_use;
pub mod result;
pub mod tally;
pub mod trace;
pub mod violation;
