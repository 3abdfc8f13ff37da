//! The messages, client and server trait of the gRPC health checking protocol.

include!(concat!(env!("OUT_DIR"), "/health/grpc.health.v1.rs"));
