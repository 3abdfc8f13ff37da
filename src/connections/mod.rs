//! The open connections of each port, within bounds that one client cannot exhaust for the others.
//!
//! `descriptors` divides the file descriptors of the process between the ports. A [`ConnectionTable`] limits the
//! connections of one port: a full port closes the connection that has been idle for the longest time. It also limits
//! the TLS handshakes in progress, and the responses that clients do not read: [`TrackedResponse`] and [`ConnectionIo`]
//! report when a response begins and when its last byte is written. `unread_body` discards requests that are answered
//! before they are read. `http_server` serves the admin port.

mod descriptors;
mod executor;
mod handshakes;
mod http_server;
mod io;
mod responses;
mod share_key;
mod table;
mod unread_body;

pub use descriptors::{ConnectionLimits, TooFewDescriptors, raise_file_limit};
pub use executor::RequestExecutor;
pub use handshakes::HandshakeGuard;
pub use http_server::serve_http;
pub use io::{ConnectionIo, WRITE_TIMEOUT};
pub use responses::{Streamed, TrackedResponse};
pub use share_key::ShareKey;
pub use table::{ConnectionGuard, ConnectionTable, OpenConnection, RequestGuard, TableLimits};
pub use unread_body::discard_unread_body;
