//! Injects faults while clients use the gateway.

use std::{fs, net::SocketAddr, path::PathBuf};

use tokio::{sync::watch, time::Instant};
use tonic_types::StatusExt as _;

use super::{
    clients::connect,
    planned_changes::CHANGES,
    proxy::UpstreamAddress,
    sandbox::{ForeignClient, PASSWORD},
};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Gateway, Setup},
    requests::esim,
    wait::in_time,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// A kill and a restart.
    Killed,
    /// A kill and a restart, with a wrong password until ThingSpace has refused it.
    LoginRefused,
    /// The access token is revoked.
    TokenRevoked,
    /// The disk of the journal is full.
    DiskFull,
}

/// A fault, and its time.
#[derive(Debug, Clone, Copy)]
pub struct FaultInterval {
    pub fault: InjectedFault,
    pub from: Instant,
    pub to: Instant,
}

/// Injects faults into a gateway and its environment.
pub struct FaultInjector<'r> {
    pub setup: &'r Setup,
    pub addresses: &'r GatewayAddresses,
    pub disk: &'r FaultyDisk,
    pub password: PathBuf,
    pub foreign_client: ForeignClient,
}

/// Addresses of the running gateway for clients and for callbacks.
pub struct GatewayAddresses {
    pub grpc: watch::Sender<Option<SocketAddr>>,
    pub callbacks: watch::Sender<Option<SocketAddr>>,
}

/// Devices from this number belong to no planned change.
const FIRST_PROBE_DEVICE: usize = 900_000;

const INJECTED_FAULTS: [InjectedFault; 6] = [
    InjectedFault::DiskFull,
    InjectedFault::Killed,
    InjectedFault::Killed,
    InjectedFault::LoginRefused,
    InjectedFault::TokenRevoked,
    InjectedFault::TokenRevoked,
];

// === impl GatewayAddresses ===

impl GatewayAddresses {
    pub fn new() -> Self {
        Self { grpc: watch::Sender::new(None), callbacks: watch::Sender::new(None) }
    }

    pub fn set(&self, gateway: Option<&Gateway>) {
        self.grpc.send_replace(gateway.map(|gateway| gateway.grpc));
        self.callbacks.send_replace(gateway.map(|gateway| gateway.callbacks));
    }
}

// === impl FaultInjector ===

impl FaultInjector<'_> {
    /// Injects all faults, each after a random number of calls.
    pub async fn inject_all(
        &self,
        mut gateway: Gateway,
        mut started: watch::Receiver<usize>,
        seed: u64,
    ) -> (Gateway, Vec<FaultInterval>) {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
        let mut faults = INJECTED_FAULTS.map(|fault| (random.usize(1..CHANGES), fault));
        faults.sort_unstable_by_key(|(moment, _)| *moment);
        let mut intervals = Vec::new();
        for (moment, fault) in faults {
            let reached = started.wait_for(|count| *count >= moment);
            let _count = *in_time(reached).await.expect("clients");
            // A random delay, so that the fault meets calls at different stages.
            for _ in 0..random.usize(0..2_000) {
                tokio::task::yield_now().await;
            }
            let from = Instant::now();
            let refusals = random.usize(1..20);
            gateway = self.inject(gateway, fault, refusals).await;
            let to = Instant::now();
            intervals.push(FaultInterval { fault, from, to });
        }
        (gateway, intervals)
    }

    async fn inject(&self, gateway: Gateway, fault: InjectedFault, refusals: usize) -> Gateway {
        match fault {
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
                self.probe_until_refused("JOURNAL_UNAVAILABLE", refusals).await;
                self.disk.empty();
                gateway
            }
        }
    }

    async fn restart(&self, mut gateway: Gateway) -> Gateway {
        self.addresses.set(None);
        gateway.kill().await;
        let gateway = self.setup.start().await;
        self.addresses.set(Some(&gateway));
        gateway
    }

    /// Makes changes of other devices until this number of them has failed with this reason.
    async fn probe_until_refused(&self, reason: &str, refusals: usize) {
        let mut target: UpstreamAddress = self.addresses.grpc.subscribe();
        let mut client = connect(&mut target).await;
        let asking = async {
            let mut refused_so_far = 0;
            for number in FIRST_PROBE_DEVICE.. {
                let probe = esim(&format!("probe-{reason}-{number}"), [number]);
                let refused = client.change_esim_plan(probe).await;
                let info = refused.err().and_then(|status| status.get_details_error_info());
                refused_so_far += usize::from(info.is_some_and(|info| info.reason == reason));
                if refused_so_far == refusals {
                    return;
                }
            }
        };
        in_time(asking).await;
    }
}
