//! Parts that the servers and the load generators share.

pub mod devices;
pub mod encoded;
pub mod http;
pub mod report;

/// Messages, clients and servers of the gateway's protos.
pub mod proto {
    tonic::include_proto!("thingspace.gateway.v1");
}

/// The server whose watches send encoded messages.
pub mod encoded_server {
    include!(concat!(env!("OUT_DIR"), "/encoded/thingspace.gateway.v1.rs"));
    pub use gateway_service_server::*;
}
