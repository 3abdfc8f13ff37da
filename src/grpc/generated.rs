//! Generated code.
#![allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]

/// The server's trait of `GatewayService`, over the messages of [`crate::proto`].
pub mod stub {
    include!(concat!(env!("OUT_DIR"), "/server/thingspace.gateway.v1.rs"));
}

/// The messages, client and server trait of the gRPC health checking protocol.
pub mod health_v1 {
    include!(concat!(env!("OUT_DIR"), "/health/grpc.health.v1.rs"));
}
