//! Admission control: which calls may be read, and how much memory they may hold.

pub(super) mod byte_budget;
pub(super) mod concurrency;
pub(super) mod device_count;
pub(super) mod inflate;
pub(super) mod inflight_reads;
pub(super) mod message_reader;
pub(super) mod slow_reader;
