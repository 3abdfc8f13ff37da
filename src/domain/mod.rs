//! The rules of the gateway, as pure functions: no I/O, no async, no clock.

pub mod attribution;
pub mod backoff;
pub mod caller_name;
pub mod change;
pub mod change_type;
pub mod clock;
pub mod device_states;
pub mod evidence;
pub mod identifier;
pub mod matching;
mod named_enum;
pub mod newtypes;
pub mod refusal;
pub mod result;
pub mod state;
pub mod trace;
pub mod violation;
