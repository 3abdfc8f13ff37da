//! Thousands of connections that send a byte a second.

use super::*;
use crate::support::number;

/// The unfinished request of each kind of port. HTTP/2 begins with a preface of 24 bytes.
const REQUESTS: [&str; 2] =
    ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /callbacks/Dev HTTP/1.1\r\n"];

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_send_a_byte_a_second_do_not_keep_normal_clients_out() {
    let _alone = alone().await;
    let connections = number("TSGW_ATTACK_CONNECTIONS", 2_000);
    let seconds = number("TSGW_ATTACK_SECONDS", 3);
    for port in Port::ALL {
        let mut target = Target::start().await;
        let mut attack = JoinSet::new();
        for connection in 0..connections {
            let (address, request) = (target.address(port), REQUESTS[connection % 2].as_bytes());
            attack.spawn(async move {
                let Some(mut stream) = connect(address).await else { return };
                for byte in request.iter().take(seconds).cycle().take(seconds) {
                    if !write(&mut stream, &[*byte]).await {
                        return;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }
        target.assert_served_during(attack).await;
        // 8 KiB for the buffer of each connection, and its task.
        let name = format!("{connections} connections that send a byte a second, {port:?}");
        target.assert_memory(name, 32 + connections as u64 / 50);
    }
}
