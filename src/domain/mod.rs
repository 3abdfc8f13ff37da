//! What the gateway knows about plan changes, without any I/O.
//!
//! Nothing here is async, reads a clock, or touches a socket or a file, so
//! every rule can be tested by calling it.

pub mod attribution;
pub mod backoff;
pub mod callback;
pub mod change;
pub mod clock;
pub mod device_states;
pub mod esim;
mod fingerprint;
pub mod five_g_bi;
pub mod identifier;
pub mod matching;
pub mod newtypes;
pub mod place_of_use;
pub mod result;
pub mod trace;
pub mod validator;
pub mod violation;
