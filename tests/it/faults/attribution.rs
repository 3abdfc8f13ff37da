//! Attribution under faults. Each run has changes whose response is lost, and foreign requests for the
//! same devices. None of these may be attributed, whatever a restart, a device list or the clock does.
//!
//! The cases use their own gateway and fake ThingSpace, so that each case occurs in every run. The seed
//! decides the number and the order of the devices, and the gaps of the lists.

use serde_json::Value;
use thingspace_gateway::proto::{ChangeState, Outcome, Source};

use crate::support::{
    disk::with_clock_offset,
    env::TestEnv,
    gateway::Setup,
    requests::{callback, esim, five_g_bi, iccid, meid, until_caught_up, watch_key},
    thingspace::{CallKind, FIVE_G_BI_PLAN_PATH, FakeResponse, devices_on_plan, pending_status},
};

/// Offset of the system clock, in seconds.
const SET_BACK: i64 = -3_600;

/// A gateway, the random choices of the seed, and the violations.
struct Trial {
    env: TestEnv,
    random: fastrand::Rng,
    /// MEIDs of the devices that the retried change has moved to the plan.
    moved: Vec<String>,
    violations: Vec<String>,
}

/// Runs all cases, and returns the violations.
pub async fn run(seed: u64, failpoint: Option<&str>) -> Vec<String> {
    let mut env = TestEnv::start_with(|setup| {
        let setup = setup
            .set("changes.attribution_quiet_period", "400ms")
            .set("changes.reconcile_after", "1s")
            .set("changes.close_after", "3s");
        match failpoint {
            Some(name) => setup.failpoint(name),
            None => setup,
        }
    })
    .await;
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6174_7472);
    // A foreign request whose callbacks arrive before the gateway sends anything.
    let early = shuffled(block(1, &mut random), &mut random);
    env.deliver_five_g_bi("r-early", early.clone()).await;
    env.setup = with_clock_offset(env.setup.clone(), SET_BACK);
    env.kill_and_restart().await;
    let setup = env.setup.clone();
    let mut trial = Trial { env, random, moved: Vec::new(), violations: Vec::new() };
    trial.retry_in_another_order().await;
    trial.callback_for_two_devices().await;
    trial.change_with_lost_response("early", &early).await;
    trial.incomplete_list().await;
    let closed = trial.devices(2);
    trial.change_with_lost_response("closed", &closed).await;
    for key in ["early", "listed", "closed"] {
        trial.expect_closed(key).await;
    }
    trial.expect_proven_moves().await;
    trial.late_callbacks_of(&closed).await;
    trial.restart_within_the_quiet_period(setup).await;
    trial.violations
}

/// Numbers of devices that no other case has.
fn block(case: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    (0..random.usize(2..9)).map(|device| case * 100 + device).collect()
}

fn shuffled(mut numbers: Vec<usize>, random: &mut fastrand::Rng) -> Vec<usize> {
    random.shuffle(&mut numbers);
    numbers
}

// === impl Trial ===

impl Trial {
    fn devices(&mut self, case: usize) -> Vec<usize> {
        let numbers = block(case, &mut self.random);
        shuffled(numbers, &mut self.random)
    }

    /// Makes a 5G change that ThingSpace executes without a response.
    async fn change_with_lost_response(&mut self, key: &str, numbers: &[usize]) {
        self.env.thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
        let request = five_g_bi(key, numbers.iter().copied());
        let state = self.env.change(request).await.state();
        self.expect(key, "is unknown", state == ChangeState::OutcomeUnknown);
    }

    fn expect(&mut self, key: &str, rule: &str, holds: bool) {
        if !holds {
            self.violations.push(format!("attribution: {key}: violated: {rule}"));
        }
    }

    /// Checks that no request is attributed to a change until it is closed.
    async fn expect_closed(&mut self, key: &str) {
        let state = self.env.state(key).await;
        let is_open = matches!(state, ChangeState::OutcomeUnknown | ChangeState::Closed);
        let is_closed =
            is_open && self.env.record(watch_key(key)).await.last_summary() == "finished CLOSED";
        self.expect(key, "no request is attributed to it", is_closed);
    }

    /// A 5G change is throttled, and retried with its devices in another order. Some of them are on the
    /// plan before.
    async fn retry_in_another_order(&mut self) {
        let first = self.devices(3);
        let before = &first[..self.random.usize(1..first.len())];
        let thingspace = &self.env.thingspace;
        thingspace.respond_always(CallKind::Devices, devices_on_plan(before.iter().copied()));
        thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
        let response = self.env.try_change(five_g_bi("rearmed", first.clone())).await;
        self.expect("rearmed", "the first call is throttled", response.is_err());
        let later = shuffled(first.clone(), &mut self.random);
        self.env.change_as("r-rearmed", five_g_bi("rearmed", later)).await;
        let thingspace = &self.env.thingspace;
        thingspace.respond_always(CallKind::Devices, devices_on_plan(first.iter().copied()));

        let orders: Vec<Vec<Value>> = thingspace
            .requests_to(FIVE_G_BI_PLAN_PATH)
            .iter()
            .map(|request| {
                let body = request.json();
                let devices = body["deviceListWithServiceAddress"].as_array();
                let id = |device: &Value| device["deviceIds"][0]["id"].clone();
                devices.into_iter().flatten().map(id).collect()
            })
            .collect();
        let is_same = orders.len() == 2 && orders[0] == orders[1];
        self.expect("rearmed", "the change is sent in the stored order", is_same);
        let moved = first[before.len()..].iter();
        self.moved = moved.map(|number| meid(*number)).collect();
    }

    /// Checks that lookups prove exactly the devices that were not on the plan before.
    async fn expect_proven_moves(&mut self) {
        let mut watch = self.env.watch(watch_key("rearmed")).await;
        let moved = i32::try_from(self.moved.len()).expect("a few");
        while self.env.get("rearmed").await.succeeded_count < moved {
            watch.next().await;
        }
        let transcript = self.env.record(until_caught_up(watch_key("rearmed"))).await;
        let results = transcript.results();
        for result in &results {
            let id = result.device_ids.first().map(|id| id.id.clone());
            let has_moved = id.is_some_and(|id| self.moved.contains(&id));
            let is_proven =
                result.source() == Source::Reconciled && result.outcome() == Outcome::Succeeded;
            let holds = has_moved && is_proven;
            self.expect("rearmed", "only moved devices are proven", holds);
        }
        let all = results.len() == self.moved.len();
        self.expect("rearmed", "all moved devices are proven", all);
    }

    /// A callback that names two devices arrives before, between or after their own callbacks.
    async fn callback_for_two_devices(&mut self) {
        let is_esim = self.random.bool();
        let numbers = self.devices(4);
        let (one, other) = (numbers[0], numbers[1]);
        let id = |number: usize| {
            if is_esim { ("iccid", iccid(number)) } else { ("meid", meid(number)) }
        };
        let service = if is_esim {
            self.env.change_as("r-both", esim("both", numbers)).await;
            "DeviceProfileService"
        } else {
            let request = five_g_bi("both", numbers);
            self.env.change_as("r-both", request).await;
            "CarrierService"
        };
        let mut callbacks = [
            callback("r-both", &[id(one)], "Failed"),
            callback("r-both", &[id(one), id(other)], "Success"),
            callback("r-both", &[id(other), id(one)], "Failed"),
        ];
        self.random.shuffle(&mut callbacks);
        for callback in &callbacks {
            self.env.deliver(service, callback).await;
        }
        let change = self.env.get("both").await;
        let counts = (change.succeeded_count, change.failed_count, change.unmatched_count);
        self.expect("both", "only the device's own result counts", counts == (0, 1, 0));
    }

    /// A foreign request for one more profile. Its last callback is late, and the list of its devices is
    /// empty or incomplete.
    async fn incomplete_list(&mut self) {
        let numbers = self.devices(5);
        self.env.thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
        let change = self.env.change(esim("listed", numbers.clone())).await;
        let is_unknown = change.state() == ChangeState::OutcomeUnknown;
        self.expect("listed", "is unknown", is_unknown);
        let some = self.random.usize(0..numbers.len());
        let list = pending_status(numbers[..some].iter().copied());
        self.env.thingspace.respond_always(CallKind::Status, list);
        let numbers = shuffled(numbers, &mut self.random);
        self.env.deliver_esim("r-more", numbers).await;
    }

    /// A change with some devices of a closed change loses its response. Then late callbacks of the closed
    /// change arrive.
    async fn late_callbacks_of(&mut self, closed: &[usize]) {
        let some = &closed[..self.random.usize(1..closed.len())];
        self.change_with_lost_response("fewer", some).await;
        self.env.deliver_five_g_bi("r-closed", some.iter().copied()).await;
        self.expect_closed("fewer").await;
    }

    /// The callbacks of a foreign request for one more device, with a restart before the last one.
    async fn restart_within_the_quiet_period(&mut self, setup: Setup) {
        let numbers = self.devices(6);
        self.env.setup =
            setup.set("changes.attribution_quiet_period", "60s").set("changes.close_after", "1h");
        self.env.kill_and_restart().await;
        self.change_with_lost_response("quiet", &numbers).await;
        self.env.deliver_five_g_bi("r-one-more", numbers).await;
        self.env.kill_and_restart().await;
        // The jobs of the start have run when another change is finished.
        let round = self.devices(7);
        let request = five_g_bi("round", round.clone());
        self.env.change_as("r-round", request).await;
        self.env.deliver_five_g_bi("r-round", round).await;
        self.env.record(watch_key("round")).await;
        self.env.deliver_five_g_bi("r-one-more", [699]).await;
        let is_unknown = self.env.state("quiet").await == ChangeState::OutcomeUnknown;
        self.expect("quiet", "no request is attributed to it", is_unknown);
    }
}
