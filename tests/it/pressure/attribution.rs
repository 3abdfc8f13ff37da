//! Many changes with an unknown outcome, and a large request that may belong to any of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thingspace_gateway::proto::{ChangeEsimPlanRequest, ChangeState};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};

use crate::{
    pressure::{Deliveries, alone, deliver_one, probed},
    support::{
        env::TestEnv,
        http::http_client,
        requests::{esim, esim_callback, iccid, send_all},
        wait::in_time,
    },
};

const UNKNOWN_CHANGES: usize = 20;
/// Devices of each of them.
const DEVICES: usize = 1_000;
const FOREIGN_RESULTS: usize = 10_000;
/// Results of the foreign request that arrive together with the good callbacks: the request is judged again
/// after each.
const LATE_RESULTS: usize = 40;
const LATE_INTERVAL: Duration = Duration::from_millis(300);
const QUIET_PERIOD: &str = "100ms";
const CHANGES_PER_SECOND: u32 = 2;
/// Devices of an ordinary change, and its callbacks.
const CALLBACKS: usize = 2;
const GOOD: usize = 48;
const WITHOUT_PRESSURE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_request_of_10_000_results_beside_20_unknown_changes_does_not_delay_callbacks() {
    let _alone = alone().await;
    let env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", QUIET_PERIOD))
            .await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let without_pressure = ordinary_traffic(&env, 100_000_000, WITHOUT_PRESSURE).await;

    for number in 0..UNKNOWN_CHANGES {
        let request = other_profiles(&format!("unknown-{number}"), number);
        env.change_with_lost_response(request).await;
    }
    // The identifiers of the first result are in all of the changes.
    env.deliver_esim("r-foreign", [0]).await;
    let early: Vec<usize> = (1..FOREIGN_RESULTS - LATE_RESULTS).collect();
    let sent = early.len();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    in_time(send_all(&url, "r-foreign", early, 16, Arc::clone(&acknowledged))).await;
    assert_eq!(acknowledged.load(Ordering::Relaxed), sent);
    let late_results = async {
        let mut ticks = interval(LATE_INTERVAL);
        for number in FOREIGN_RESULTS - LATE_RESULTS..FOREIGN_RESULTS {
            ticks.tick().await;
            env.deliver_esim("r-foreign", [number]).await;
        }
    };
    let ((), under_pressure) =
        tokio::join!(late_results, ordinary_traffic(&env, 200_000_000, GOOD));

    under_pressure.assert_unaffected(&without_pressure);
    for number in 0..UNKNOWN_CHANGES {
        let state = env.state(&format!("unknown-{number}")).await;
        assert_eq!(state, ChangeState::OutcomeUnknown);
    }
}

/// A change of other profiles of the eSIMs in the foreign request.
fn other_profiles(key: &str, change: usize) -> ChangeEsimPlanRequest {
    let mut request = esim(key, 0..DEVICES);
    for (number, device) in (0..).zip(&mut request.devices) {
        device.iccid = iccid((change + 1) * 1_000_000 + number);
    }
    request
}

/// Makes ordinary changes at a constant rate and delivers their callbacks.
async fn ordinary_traffic(env: &TestEnv, first: usize, callbacks: usize) -> Deliveries {
    let url = env.gateway.callback_url("DeviceProfileService");
    let deliver = async {
        let http = http_client();
        let start = Instant::now();
        let mut sends = JoinSet::new();
        for change in 0..callbacks / CALLBACKS {
            sleep_until(start + Duration::from_secs(1) * change as u32 / CHANGES_PER_SECOND).await;
            let numbers = first + change * CALLBACKS..first + (change + 1) * CALLBACKS;
            let request_id = format!("r-{}", numbers.start);
            env.change_as(&request_id, esim(&request_id, numbers.clone())).await;
            for number in numbers {
                let callback = esim_callback(&request_id, number).to_string();
                sends.spawn(deliver_one(http.clone(), url.clone(), callback, Instant::now()));
            }
        }
        Deliveries::join(sends).await
    };
    probed(env, deliver).await
}
