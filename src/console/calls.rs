//! The calls that the console serves.

/// The package and the service of the calls of clients, and of operators.
const GATEWAY: &str = "/thingspace.gateway.v1.GatewayService/";
const OPERATOR: &str = "/thingspace.gateway.v1.OperatorService/";
/// The served calls of `GatewayService`. None of them makes a change or a request to ThingSpace.
const READS: [&str; 7] = [
    "GetServerInfo",
    "GetChange",
    "ListChanges",
    "ListDevices",
    "ListDeviceResults",
    "WatchRequest",
    "WatchAccount",
];

/// Returns the reason why a call is not served. `None` if it is.
pub(super) fn refuse(path: &str) -> Option<&'static str> {
    let is_served = path.starts_with(OPERATOR)
        || path.strip_prefix(GATEWAY).is_some_and(|method| READS.contains(&method));
    (!is_served).then_some(
        "the console does not serve this call: it serves reads, watches and OperatorService; \
         make changes on the gRPC port\n",
    )
}

#[cfg(test)]
mod tests;
