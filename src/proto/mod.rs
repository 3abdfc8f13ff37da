//! The messages and client stubs of `proto/thingspace/gateway/v1`.

mod convert;

pub use generated::*;

#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated; its documentation is the comments of the proto files"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/messages/thingspace.gateway.v1.rs"));
}

/// Descriptors of all served protos and of google/rpc/error_details.proto.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
