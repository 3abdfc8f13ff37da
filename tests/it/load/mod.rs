//! Limits, slow peers, a slow or full disk, and shutdown under load.

mod callers;
mod deadlines;
mod drain;
mod full_disk;
mod limits;
mod overload;
mod partial_requests;
mod slow_disk;
mod slow_watcher;
mod spool;
