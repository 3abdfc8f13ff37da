//! Admission control: limits concurrent calls and the memory of their messages. See docs/limits.md.

pub(super) mod byte_budget;
pub(super) mod caller_usage;
pub(super) mod concurrency;
pub(super) mod device_count;
pub(super) mod message_reader;
pub(super) mod method_class;
mod token_bucket;
