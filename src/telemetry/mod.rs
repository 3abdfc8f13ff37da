//! What the program tells about itself.

mod logging;

pub use logging::{LogFormat, TelemetryError, init};
