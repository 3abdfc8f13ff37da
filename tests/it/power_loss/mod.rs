//! Power loss.
//!
//! A kill leaves the page cache intact, and a power loss does not. A preloaded library records all
//! writes and syncs of gateways (`tests/tools/disk_trace.c`). The tests reconstruct the disk as it would
//! be after a power loss at any point of the record. Each disk must have everything that was
//! acknowledged before that point.
//!
//! ```text
//! TSGW_POWER_CUTS=20000 cargo test --locked --test it power_loss -- --nocapture
//! ```

mod checker;
mod checker_tests;
mod disk;
mod every_power_loss;
mod fact_log;
mod killed;
mod power_losses;
mod recorded_process;
mod restarted;
mod trace;
mod workload;
