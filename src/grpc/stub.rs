//! The server's trait of `GatewayService`, over the messages of [`crate::proto`].

include!(concat!(env!("OUT_DIR"), "/server/thingspace.gateway.v1.rs"));
