//! Clients that do not read the responses to their calls: with a window of 0 or 1, and also with full socket buffers.

use super::{
    frames::{CHECK, MAX_WINDOW, call, preface, streams},
    *,
};
use crate::support::number;

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// A reflection request for the file that has this symbol: a response of many KiB.
const FILE_REQUEST: &[u8] = b"\x22\x25thingspace.gateway.v1.GatewayService";

/// Makes many calls on many connections, and reads nothing.
async fn attack(name: &str, port: Port, path: &'static str, message: &'static [u8], window: u32) {
    let _alone = alone().await;
    let connections = number("TSGW_ATTACK_UNREAD_CONNECTIONS", 40);
    let calls = number("TSGW_ATTACK_CALLS", 500);
    let mut target = Target::start().await;
    let mut attack = JoinSet::new();
    for _ in 0..connections {
        let address = target.address(port);
        attack.spawn(async move {
            let Some(mut stream) = connect(address).await else { return };
            let mut open = write(&mut stream, &preface(window)).await;
            for stream_id in streams().take(calls) {
                open = open && write(&mut stream, &call(stream_id, path, message)).await;
            }
            // The connection stays open while the others attack.
            sleep(Duration::from_secs(3)).await;
        });
    }
    target.assert_served_during(attack).await;
    let name = format!("{connections} connections x {calls} {name}, {port:?}");
    // All calls at once would be 20,000, or 110,000 with the numbers of scripts/attack.
    target.assert_memory(name, 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_health_checks_use_bounded_memory() {
    attack("health checks, window 0", Port::Grpc, CHECK, b"", 0).await;
    attack("health checks, window 1", Port::Grpc, CHECK, b"", 1).await;
    attack("health checks, window 0", Port::Admin, CHECK, b"", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_errors_use_bounded_memory() {
    attack("unknown methods, window 0", Port::Grpc, "/unknown.Service/Method", b"", 0).await;
    attack("unknown methods, window 0", Port::Admin, "/unknown.Service/Method", b"", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_reflection_responses_use_bounded_memory() {
    attack("reflection calls, window 1", Port::Grpc, REFLECTION, FILE_REQUEST, 1).await;
    // The socket buffers are full after some hundred responses.
    attack("reflection calls, unread", Port::Grpc, REFLECTION, FILE_REQUEST, MAX_WINDOW).await;
}
