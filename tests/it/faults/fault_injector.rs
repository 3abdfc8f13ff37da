//! What befalls the gateway while it is used.

use std::{fs, net::SocketAddr, path::PathBuf};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic_types::StatusExt as _;

use super::{
    clients::connect,
    planned_changes::CHANGES,
    proxy::UpstreamAddress,
    sandbox::{ForeignClient, PASSWORD},
};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Gateway, Setup, TEST_TIMEOUT},
    requests::esim,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// `kill -9`, and a start.
    Killed,
    /// As that, with a wrong password until it has been refused.
    LoginRefused,
    /// The access token ends before its time.
    TokenRevoked,
    /// The journal's disk is full for a while.
    DiskFull,
}

/// What befell it, and when.
#[derive(Debug, Clone, Copy)]
pub struct FaultInterval {
    pub fault: InjectedFault,
    pub from: Instant,
    pub to: Instant,
}

/// A gateway to which things happen.
pub struct FaultInjector<'r> {
    pub setup: &'r Setup,
    pub addresses: &'r GatewayAddresses,
    pub disk: &'r FaultyDisk,
    pub password: PathBuf,
    pub foreign_client: ForeignClient,
}

/// Where the gateway is, for clients and for callbacks.
pub struct GatewayAddresses {
    pub grpc: watch::Sender<Option<SocketAddr>>,
    pub callbacks: watch::Sender<Option<SocketAddr>>,
}

/// From here on devices are of no order.
const FIRST_PROBE_DEVICE: usize = 900_000;

const INJECTED_FAULTS: [InjectedFault; 6] = [
    InjectedFault::DiskFull,
    InjectedFault::Killed,
    InjectedFault::Killed,
    InjectedFault::LoginRefused,
    InjectedFault::TokenRevoked,
    InjectedFault::TokenRevoked,
];

// === impl Places ===

impl GatewayAddresses {
    pub fn new() -> Self {
        Self {
            grpc: watch::Sender::new(None),
            callbacks: watch::Sender::new(None),
        }
    }

    pub fn set(&self, gateway: Option<&Gateway>) {
        self.grpc.send_replace(gateway.map(|gateway| gateway.grpc));
        self.callbacks
            .send_replace(gateway.map(|gateway| gateway.callbacks));
    }
}

// === impl Scene ===

impl FaultInjector<'_> {
    /// Lets everything happen, each when so many changes have been asked for.
    pub async fn inject_all(
        &self,
        mut gateway: Gateway,
        mut started: watch::Receiver<usize>,
        seed: u64,
    ) -> (Gateway, Vec<FaultInterval>) {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
        let mut troubles = INJECTED_FAULTS.map(|trouble| (random.usize(1..CHANGES), trouble));
        troubles.sort_unstable_by_key(|(moment, _)| *moment);
        let mut befallen = Vec::new();
        for (moment, what) in troubles {
            let reached = started.wait_for(|count| *count >= moment);
            let _count = *timeout(TEST_TIMEOUT, reached)
                .await
                .expect("in time")
                .expect("clients");
            // Some way into what is under way, not always its first step.
            for _ in 0..random.usize(0..2_000) {
                tokio::task::yield_now().await;
            }
            let from = Instant::now();
            let refusals = random.usize(1..20);
            gateway = self.inject(gateway, what, refusals).await;
            let to = Instant::now();
            befallen.push(FaultInterval {
                fault: what,
                from,
                to,
            });
        }
        (gateway, befallen)
    }

    async fn inject(&self, gateway: Gateway, what: InjectedFault, refusals: usize) -> Gateway {
        match what {
            InjectedFault::Killed => self.restart(gateway).await,
            InjectedFault::LoginRefused => {
                fs::write(&self.password, "wrong").expect("a file");
                let gateway = self.restart(gateway).await;
                self.probe_until_refused("GATEWAY_CREDENTIALS", 1).await;
                fs::write(&self.password, PASSWORD).expect("a file");
                gateway
            }
            InjectedFault::TokenRevoked => {
                self.foreign_client.revoke_token().await;
                gateway
            }
            InjectedFault::DiskFull => {
                self.disk.fill_entirely();
                self.probe_until_refused("JOURNAL_UNAVAILABLE", refusals)
                    .await;
                self.disk.empty();
                gateway
            }
        }
    }

    async fn restart(&self, gateway: Gateway) -> Gateway {
        self.addresses.set(None);
        gateway.kill().await;
        let gateway = self.setup.start().await;
        self.addresses.set(Some(&gateway));
        gateway
    }

    /// Asks for changes of devices that are no order's, until so many were refused for this
    /// reason.
    async fn probe_until_refused(&self, reason: &str, refusals: usize) {
        let mut target: UpstreamAddress = self.addresses.grpc.subscribe();
        let mut client = connect(&mut target).await;
        let asking = async {
            let mut refused_so_far = 0;
            for number in FIRST_PROBE_DEVICE.. {
                let probe = esim(&format!("probe-{reason}-{number}"), [number]);
                let refused = client.change_esim_plan(probe).await;
                let info = refused
                    .err()
                    .and_then(|status| status.get_details_error_info());
                refused_so_far += usize::from(info.is_some_and(|info| info.reason == reason));
                if refused_so_far == refusals {
                    return;
                }
            }
        };
        timeout(TEST_TIMEOUT, asking).await.expect("it refuses one");
    }
}
