//! A gateway process, its fake ThingSpace, and a client.

use thingspace_gateway::proto::{
    Change, ChangeState, DeviceResult, ListDeviceResultsRequest, WatchRequestRequest,
};
use tokio::task::JoinHandle;
use tonic::Status;

use super::{
    disk::FaultyDisk,
    gateway::{Client, Gateway, Setup, TestDir, UNREACHABLE_URL},
    requests::{
        ChangeCall, Watch, WatchCall, WatchTranscript, deliver, esim_callback, five_g_bi_success,
        get_by_key,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace, HeldCall},
    wait::in_time,
};

/// A running gateway with a fake ThingSpace, a journal directory and a client.
pub struct TestEnv {
    pub directory: TestDir,
    pub thingspace: FakeThingSpace,
    /// Settings of the next start.
    pub setup: Setup,
    pub gateway: Gateway,
    pub client: Client,
}

impl TestEnv {
    /// Starts a gateway with the settings of [`Setup::serve`].
    pub async fn start() -> Self {
        Self::start_with(|setup| setup).await
    }

    /// Starts a gateway with changed settings.
    pub async fn start_with(configure: impl FnOnce(Setup) -> Setup) -> Self {
        Self::start_in(TestDir::new(), |setup, _| configure(setup)).await
    }

    /// Starts a gateway that cannot connect to ThingSpace.
    pub async fn start_offline(configure: impl FnOnce(Setup) -> Setup) -> Self {
        Self::start_with(|setup| configure(setup.set("thingspace.base_url", UNREACHABLE_URL))).await
    }

    /// Starts a gateway whose directory is on a faulty disk.
    pub async fn start_with_disk(configure: impl FnOnce(Setup) -> Setup) -> (Self, FaultyDisk) {
        let directory = TestDir::new();
        let disk = FaultyDisk::new(directory.path());
        let env = Self::start_in(directory, |setup, _| configure(disk.attach(setup))).await;
        (env, disk)
    }

    /// Starts a gateway whose settings depend on its directory.
    pub async fn start_in(
        directory: TestDir,
        configure: impl FnOnce(Setup, &TestDir) -> Setup,
    ) -> Self {
        let thingspace = FakeThingSpace::start().await;
        let setup = configure(Setup::serve(&thingspace.base_url(), &directory), &directory);
        let gateway = setup.start().await;
        Self { client: gateway.client().await, directory, thingspace, setup, gateway }
    }

    // --- Process ----------------------------------------------------------

    /// Stops the gateway with SIGTERM and starts it again.
    pub async fn restart(&mut self) {
        assert_eq!(self.gateway.terminate().await.code, Some(0));
        self.start_again().await;
    }

    /// Kills the gateway and starts it again.
    pub async fn kill_and_restart(&mut self) {
        self.gateway.kill().await;
        self.start_again().await;
    }

    /// Starts the gateway after it has ended.
    pub async fn start_again(&mut self) {
        self.gateway = self.setup.start().await;
        self.client = self.gateway.client().await;
    }

    // --- Calls ------------------------------------------------------------

    /// Makes a change, which must return OK.
    pub async fn change(&self, request: impl ChangeCall) -> Change {
        self.try_change(request).await.expect("OK")
    }

    /// Makes a change, which must fail.
    pub async fn change_error(&self, request: impl ChangeCall) -> Status {
        self.try_change(request).await.expect_err("an error")
    }

    pub async fn try_change(&self, request: impl ChangeCall) -> Result<Change, Status> {
        in_time(request.call(self.client.clone())).await
    }

    /// Makes a change that ThingSpace executes without a response.
    pub async fn change_with_lost_response(&self, request: impl ChangeCall) -> Change {
        self.thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
        let change = self.change(request).await;
        assert_eq!(change.state(), ChangeState::OutcomeUnknown);
        change
    }

    /// Makes a change that ThingSpace accepts under this request ID.
    pub async fn change_as(&self, request_id: &str, request: impl ChangeCall) -> Change {
        let accepted = FakeResponse::Accepted(request_id.into());
        self.thingspace.respond_once(CallKind::Change, accepted);
        self.change(request).await
    }

    /// Makes a change in the background, and waits until ThingSpace holds a call of this kind.
    pub async fn start_held_change(
        &self,
        kind: CallKind,
        request: impl ChangeCall,
    ) -> (HeldCall, JoinHandle<Result<Change, Status>>) {
        let mut call = self.thingspace.hold(kind);
        let change = tokio::spawn(request.call(self.client.clone()));
        call.arrived().await;
        (call, change)
    }

    /// Returns the change with this idempotency key.
    pub async fn get(&self, key: &str) -> Change {
        self.try_get(key).await.expect("a change")
    }

    pub async fn try_get(&self, key: &str) -> Result<Change, Status> {
        get_by_key(&mut self.client.clone(), key).await
    }

    pub async fn state(&self, key: &str) -> ChangeState {
        self.get(key).await.state()
    }

    /// Returns all results of a change of at most 100 devices.
    pub async fn list_results(&self, change: &Change) -> Vec<DeviceResult> {
        let request = ListDeviceResultsRequest {
            change_id: change.change_id.clone(),
            page_size: 100,
            ..ListDeviceResultsRequest::default()
        };
        let page = self.client.clone().list_device_results(request).await;
        page.expect("a page").into_inner().device_results
    }

    /// Opens a watch.
    pub async fn watch(&self, request: impl WatchCall) -> Watch {
        Watch::open(&mut self.client.clone(), request).await
    }

    /// Opens a watch and reads it to its end.
    pub async fn record(&self, request: impl WatchCall) -> WatchTranscript {
        self.watch(request).await.read_to_end().await
    }

    /// Waits until a change has this number of devices without a final result.
    pub async fn wait_for_pending(&self, request: WatchRequestRequest, key: &str, pending: i32) {
        let mut watch = self.watch(request).await;
        while self.get(key).await.pending_count != pending {
            watch.next().await;
        }
    }

    // --- Callbacks --------------------------------------------------------

    /// Delivers a callback that the gateway must store as new.
    pub async fn deliver(&self, service: &str, callback: &serde_json::Value) {
        deliver(&self.gateway.callback_url(service), callback).await;
    }

    /// Delivers the successful callbacks of an eSIM request for these profiles.
    pub async fn deliver_esim(&self, request: &str, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let callback = esim_callback(request, number);
            self.deliver("DeviceProfileService", &callback).await;
        }
    }

    /// Delivers the successful callbacks of a 5G request for these devices.
    pub async fn deliver_five_g_bi(&self, request: &str, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let callback = five_g_bi_success(request, number);
            self.deliver("CarrierService", &callback).await;
        }
    }
}
