//! What the gateway knows about plan changes, without any I/O.
//!
//! Nothing here is async, reads a clock, or touches a socket or a file, so
//! every rule can be tested by calling it.

pub mod attribution;
pub mod backoff;
pub mod callback;
pub mod change;
pub mod change_type;
pub mod clock;
pub mod device_states;
pub mod evidence;
pub mod identifier;
pub mod matching;
pub mod newtypes;
pub mod refusal;
pub mod result;
pub mod state;
pub mod trace;
pub mod violation;
