//! A gateway that may open few files.

use super::*;
use crate::support::http::read_metrics;

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_one_port_leave_descriptors_for_the_others() {
    let _alone = alone().await;
    for port in Port::ALL {
        let env = TestEnv::start_with(|setup| setup.max_files(1_024)).await;
        let mut target = Target::of(env).await;
        let metrics = read_metrics(&target.env.gateway).await;
        assert!(metrics.contains("thingspace_gateway_connections_limit{"), "{metrics}");
        let address = target.address(port);
        let mut idle = Vec::new();
        for _ in 0..1_000 {
            idle.extend(connect(address).await);
        }
        target.assert_served().await;
        let open = descriptors(&target.env.gateway);
        assert!(open < 400, "{port:?}: {open} descriptors are open");
        let log = target.env.gateway.kill().await;
        assert!(log.contains("smaller connection limits"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_may_open_too_few_files_names_the_limit_and_does_not_start() {
    let env = TestEnv::start_offline(|setup| setup).await;
    let exit = env.setup.clone().max_files(1_000).start_error().await;
    assert_eq!(exit.code, Some(78), "{}", exit.log);
    assert!(exit.log.contains("RLIMIT_NOFILE"), "{}", exit.log);
}
