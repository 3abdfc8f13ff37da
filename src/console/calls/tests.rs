use prost_reflect::DescriptorPool;

use super::*;
use crate::{operations, proto};

#[test]
fn every_call_but_those_of_thingspace_is_served() {
    let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
    let changes: Vec<_> = operations::all().map(|info| info.rpc).collect();
    assert!(!changes.is_empty());
    let of_api = |name: &str| name.starts_with("thingspace.gateway.v1.");
    for service in pool.services().filter(|service| of_api(service.full_name())) {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let calls_thingspace =
                changes.contains(&method.name()) || method.name() == "ListServicePlans";
            assert_eq!(refuse(&path).is_some(), calls_thingspace, "{path}");
        }
    }
    assert!(refuse("/thingspace.gateway.v1.GatewayService/NoSuchMethod").is_some());
    assert!(refuse("/thingspace.gateway.v1.GatewayService/").is_some());
}
