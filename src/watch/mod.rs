//! Watches: resumable streams of a change's or a request's stored and new events.
//!
//! A watch pulls: it reads the journal at the pace of its client. Nothing is dropped for a slow client, and
//! no other client waits for it. Watches of one target share a `Tail`, which reads and encodes each new event
//! once, and wakes them afterwards. A watch that falls behind the tail reads the journal itself.

mod message;
mod page;
mod resume;
mod ring;
mod stream;
mod tail;
mod token;

pub use message::{MessageEncoder, ReconnectReason, WatchMessage};
pub use resume::WatchOpenError;
pub use stream::{StreamAccess, StreamError, StreamTimes, Until, Watch, WatchOptions, Watches};
pub use token::{InvalidResumeToken, ResumePoint, ResumeToken};

#[cfg(test)]
mod tests;
