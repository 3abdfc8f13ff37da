//! Parts that the servers and the load generators share.

pub mod devices;
pub mod encoded;
pub mod http;
pub mod report;

/// Messages, clients and servers of the gateway's protos.
pub mod proto {
    tonic::include_proto!("thingspace.gateway.v1");
}

/// The same service, whose watch messages stay encoded.
pub mod encoded_service {
    include!(concat!(env!("OUT_DIR"), "/encoded/thingspace.gateway.v1.rs"));
    pub use gateway_service_client::*;
    pub use gateway_service_server::*;
}
