//! Attribution under faults: in every run, changes whose answer is lost, and foreign requests that
//! look like them. None of them may be attributed wrongly, whatever a restart, a list or the clock says.
//!
//! The gateway and its ThingSpace are those of the run's own, beside the ones of the hundred clients, so that
//! each case happens in every run. The seed decides how many devices there are, in which order they are named, and
//! what a list lacks.

use serde_json::{Value, json};
use thingspace_gateway::proto::{Change, ChangeState, Outcome, Source};

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    requests::{
        FIVE_G_BI_PLAN, Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim,
        esim_callback, five_g_bi, get_by_key, meid, until_caught_up, watch_key,
    },
    sender::iccid,
    thingspace::{CallKind, FIVE_G_BI_PLAN_PATH, FakeResponse, FakeThingSpace},
    wrong_clock::with_clock_offset,
};

/// The time by which the clock is set back.
const SET_BACK: i64 = -3_600;

/// A gateway with a ThingSpace that answers as the case needs it.
struct Trial {
    thingspace: FakeThingSpace,
    /// `None` while it is down.
    gateway: Option<Gateway>,
    client: Client,
    random: fastrand::Rng,
    /// The MEIDs of the devices that a change that was sent again has moved to the plan.
    moved: Vec<String>,
    found: Vec<String>,
}

/// Runs all cases, and returns what was wrong.
pub async fn run(seed: u64, broken: Option<&str>) -> Vec<String> {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let mut setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "400ms")
        .set("changes.reconcile_after", "1s")
        .set("changes.close_after", "3s");
    if let Some(rule) = broken {
        setup = setup.env("TSGW_BROKEN", rule);
    }
    let gateway = setup.start().await;
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6174_7472);
    // A foreign request whose callbacks arrive before the gateway sends anything.
    let early = shuffled(block(1, &mut random), &mut random);
    deliver_callbacks(&gateway, "r-early", &early).await;
    gateway.kill().await;

    let setup = with_clock_offset(setup, SET_BACK);
    let gateway = setup.start().await;
    let client = gateway.client().await;
    let mut trial = Trial {
        thingspace,
        gateway: Some(gateway),
        client,
        random,
        moved: Vec::new(),
        found: Vec::new(),
    };
    trial.sent_again_in_another_order().await;
    trial.two_devices_in_one_callback().await;
    trial.change_with_lost_response("early", &early).await;
    trial.an_incomplete_list().await;
    let closed = trial.devices(2);
    trial.change_with_lost_response("closed", &closed).await;
    for key in ["early", "listed", "closed"] {
        trial.is_closed(key).await;
    }
    trial.proves_what_moved().await;
    trial.a_late_callback_of(&closed).await;
    trial.a_restart_within_the_quiet_period(&setup).await;
    trial.found
}

/// Numbers of devices that no other case has.
fn block(case: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    (0..random.usize(2..9))
        .map(|device| case * 100 + device)
        .collect()
}

fn shuffled(mut numbers: Vec<usize>, random: &mut fastrand::Rng) -> Vec<usize> {
    random.shuffle(&mut numbers);
    numbers
}

/// ThingSpace's callbacks of a request for these 5G devices.
async fn deliver_callbacks(gateway: &Gateway, request: &str, numbers: &[usize]) {
    let url = gateway.callback_url("CarrierService");
    for number in numbers {
        deliver(
            &url,
            &callback(request, &[("meid", meid(*number))], "Success"),
        )
        .await;
    }
}

fn callback(request: &str, ids: &[(&str, String)], status: &str) -> Value {
    let ids: Vec<Value> = ids
        .iter()
        .map(|(kind, id)| json!({"kind": kind, "id": id}))
        .collect();
    json!({"requestId": request, "deviceIds": ids, "status": status})
}

fn json_response(body: &Value) -> FakeResponse {
    let headers = vec![("content-type", "application/json")];
    FakeResponse::Custom(200, headers, body.to_string())
}

/// The device list of an account on which these 5G devices are on the plan.
fn on_plan(numbers: &[usize]) -> FakeResponse {
    let device = |number: &usize| {
        json!({
            "accountName": "0000123456-00001",
            "deviceIds": [{"kind": "meid", "id": meid(*number)}],
            "carrierInformations": [{"carrierName": "Verizon", "servicePlan": FIVE_G_BI_PLAN}],
        })
    };
    let devices: Vec<Value> = numbers.iter().map(device).collect();
    json_response(&json!({"hasMoreData": false, "devices": devices}))
}

/// ThingSpace's status of a request for these profiles.
fn lists(numbers: &[usize]) -> FakeResponse {
    let device = |number: &usize| {
        let ids = json!([{"kind": "iccid", "id": iccid(*number)}]);
        json!({"ids": ids, "status": "Pending"})
    };
    let devices: Vec<Value> = numbers.iter().map(device).collect();
    json_response(&json!({"requestId": "r", "status": "Pending", "subRequests": devices}))
}

// === impl Trial ===

impl Trial {
    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs")
    }

    /// `kill -9`, and a start.
    async fn restart(&mut self, setup: &Setup) {
        self.gateway.take().expect("it runs").kill().await;
        let gateway = setup.start().await;
        self.client = gateway.client().await;
        self.gateway = Some(gateway);
    }

    fn devices(&mut self, case: usize) -> Vec<usize> {
        let numbers = block(case, &mut self.random);
        shuffled(numbers, &mut self.random)
    }

    /// A 5G change that ThingSpace has executed and not answered.
    async fn change_with_lost_response(&mut self, key: &str, numbers: &[usize]) {
        self.thingspace
            .respond_once(CallKind::Change, FakeResponse::HangUp);
        let request = five_g_bi(key, numbers.iter().copied());
        let change = change_five_g_bi(&mut self.client, request).await;
        self.expect(
            key,
            "is unknown",
            change.state() == ChangeState::OutcomeUnknown,
        );
    }

    fn expect(&mut self, key: &str, what: &str, is_so: bool) {
        if !is_so {
            self.found
                .push(format!("attribution: {key}: violated: {what}"));
        }
    }

    async fn change(&mut self, key: &str) -> Change {
        get_by_key(&mut self.client, key).await.expect("a change")
    }

    /// Nothing was attributed to a change until it was closed.
    async fn is_closed(&mut self, key: &str) {
        let state = self.change(key).await.state();
        if !matches!(state, ChangeState::OutcomeUnknown | ChangeState::Closed) {
            return self.expect(key, "no request is attributed to it", false);
        }
        let story = WatchTranscript::record(&mut self.client, watch_key(key))
            .await
            .short();
        let is_closed = story.last().is_some_and(|last| last == "finished CLOSED");
        self.expect(key, "no request is attributed to it", is_closed);
    }

    /// A 5G change is throttled, and sent again with its devices in another order. Some of them are on the
    /// plan before.
    async fn sent_again_in_another_order(&mut self) {
        let first = self.devices(3);
        let before = &first[..self.random.usize(1..first.len())];
        self.thingspace
            .respond_always(CallKind::Devices, on_plan(before));
        let throttled = FakeResponse::Custom(429, Vec::new(), String::new());
        self.thingspace.respond_once(CallKind::Change, throttled);
        let request = five_g_bi("rearmed", first.iter().copied());
        let refused = self.client.change_five_g_bi_plan(request).await;
        self.expect("rearmed", "it is throttled", refused.is_err());
        let later = shuffled(first.clone(), &mut self.random);
        let accepted = FakeResponse::Accepted("r-rearmed".into());
        self.thingspace.respond_once(CallKind::Change, accepted);
        change_five_g_bi(&mut self.client, five_g_bi("rearmed", later)).await;
        self.thingspace
            .respond_always(CallKind::Devices, on_plan(&first));

        let bodies = self.thingspace.requests_to(FIVE_G_BI_PLAN_PATH);
        let orders: Vec<Vec<Value>> = bodies
            .iter()
            .map(|seen| {
                let body = seen.json();
                let devices = body["deviceListWithServiceAddress"].as_array();
                let id = |device: &Value| device["deviceIds"][0]["id"].clone();
                devices.into_iter().flatten().map(id).collect()
            })
            .collect();
        let is_same = orders.len() == 2 && orders[0] == orders[1];
        self.expect("rearmed", "it is sent in the stored order", is_same);
        let moved = first[before.len()..].iter();
        self.moved = moved.map(|number| meid(*number)).collect();
    }

    /// Look-ups prove exactly the devices that were not on the plan before.
    async fn proves_what_moved(&mut self) {
        let mut watch = Watch::open(&mut self.client, watch_key("rearmed")).await;
        let mut change = self.change("rearmed").await;
        while change.succeeded_count < i32::try_from(self.moved.len()).expect("a few") {
            watch.next().await;
            change = self.change("rearmed").await;
        }
        let story =
            WatchTranscript::record(&mut self.client, until_caught_up(watch_key("rearmed"))).await;
        let results = story.results();
        for result in &results {
            let id = result.device_ids.first().map(|id| id.id.clone());
            let has_moved = id.is_some_and(|id| self.moved.contains(&id));
            let is_proven =
                result.source() == Source::Reconciled && result.outcome() == Outcome::Succeeded;
            self.expect(
                "rearmed",
                "only what moved is proven",
                has_moved && is_proven,
            );
        }
        let all = results.len() == self.moved.len();
        self.expect("rearmed", "all that moved is proven", all);
    }

    /// A callback that names two devices comes before, between or after the devices' own.
    async fn two_devices_in_one_callback(&mut self) {
        let is_esim = self.random.bool();
        let numbers = self.devices(4);
        let (one, other) = (numbers[0], numbers[1]);
        let id = |number: usize| match is_esim {
            true => ("iccid", iccid(number)),
            false => ("meid", meid(number)),
        };
        self.thingspace
            .respond_once(CallKind::Change, FakeResponse::Accepted("r-both".into()));
        let service = if is_esim {
            change_esim(&mut self.client, esim("both", numbers.clone())).await;
            "DeviceProfileService"
        } else {
            change_five_g_bi(&mut self.client, five_g_bi("both", numbers.clone())).await;
            "CarrierService"
        };
        let mut callbacks = [
            callback("r-both", &[id(one)], "Failed"),
            callback("r-both", &[id(one), id(other)], "Success"),
            callback("r-both", &[id(other), id(one)], "Failed"),
        ];
        self.random.shuffle(&mut callbacks);
        let url = self.gateway().callback_url(service);
        for callback in &callbacks {
            deliver(&url, callback).await;
        }
        let change = self.change("both").await;
        let counts = (
            change.succeeded_count,
            change.failed_count,
            change.unmatched_count,
        );
        self.expect(
            "both",
            "only the device's own result counts",
            counts == (0, 1, 0),
        );
    }

    /// A foreign request for one profile more. Its last callback is late, and the list of its devices
    /// is empty or lacks some.
    async fn an_incomplete_list(&mut self) {
        let numbers = self.devices(5);
        self.thingspace
            .respond_once(CallKind::Change, FakeResponse::HangUp);
        let change = change_esim(&mut self.client, esim("listed", numbers.clone())).await;
        self.expect(
            "listed",
            "is unknown",
            change.state() == ChangeState::OutcomeUnknown,
        );
        let some = self.random.usize(0..numbers.len());
        self.thingspace
            .respond_always(CallKind::Status, lists(&numbers[..some]));
        let url = self.gateway().callback_url("DeviceProfileService");
        for number in shuffled(numbers, &mut self.random) {
            deliver(&url, &esim_callback("r-more", number)).await;
        }
    }

    /// Some devices of a closed change are in a change whose answer is lost, and are called back late.
    async fn a_late_callback_of(&mut self, closed: &[usize]) {
        let some = &closed[..self.random.usize(1..closed.len())];
        self.change_with_lost_response("fewer", some).await;
        deliver_callbacks(self.gateway(), "r-closed", some).await;
        self.is_closed("fewer").await;
    }

    /// The callbacks of a foreign request for one device more, with a restart before the last one.
    async fn a_restart_within_the_quiet_period(&mut self, setup: &Setup) {
        let numbers = self.devices(6);
        let setup = setup
            .clone()
            .set("changes.attribution_quiet_period", "60s")
            .set("changes.close_after", "1h");
        self.restart(&setup).await;
        self.change_with_lost_response("quiet", &numbers).await;
        deliver_callbacks(self.gateway(), "r-one-more", &numbers).await;
        self.restart(&setup).await;
        // A whole change from its call to its end: whatever happens at a start has happened.
        let round = self.devices(7);
        self.thingspace
            .respond_once(CallKind::Change, FakeResponse::Accepted("r-round".into()));
        change_five_g_bi(&mut self.client, five_g_bi("round", round.clone())).await;
        deliver_callbacks(self.gateway(), "r-round", &round).await;
        WatchTranscript::record(&mut self.client, watch_key("round")).await;
        deliver_callbacks(self.gateway(), "r-one-more", &[699]).await;
        let change = self.change("quiet").await;
        let is_unknown = change.state() == ChangeState::OutcomeUnknown;
        self.expect("quiet", "no request is attributed to it", is_unknown);
    }
}
