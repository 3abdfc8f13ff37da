//! What befalls the gateway while it is used.

use std::{fs, net::SocketAddr, path::PathBuf};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic_types::StatusExt as _;

use super::{
    clients::connect,
    orders::CHANGES,
    proxy::Target,
    sandbox::{PASSWORD, Stranger},
};
use crate::support::{
    disk::Disk,
    gateway::{Gateway, PATIENCE, Setup},
    requests::esim,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `kill -9`, and a start.
    Killed,
    /// As that, with a wrong password until it has been refused.
    LogInRefused,
    /// The access token ends before its time.
    TokenRevoked,
    /// The journal's disk is full for a while.
    DiskFull,
}

/// What befell it, and when.
#[derive(Debug, Clone, Copy)]
pub struct Befallen {
    pub what: Trouble,
    pub from: Instant,
    pub to: Instant,
}

/// A gateway to which things happen.
pub struct Scene<'r> {
    pub setup: &'r Setup,
    pub places: &'r Places,
    pub disk: &'r Disk,
    pub password: PathBuf,
    pub stranger: Stranger,
}

/// Where the gateway is, for clients and for callbacks.
pub struct Places {
    pub grpc: watch::Sender<Option<SocketAddr>>,
    pub callbacks: watch::Sender<Option<SocketAddr>>,
}

/// From here on devices are of no order.
const NOBODYS: usize = 900_000;

const TROUBLES: [Trouble; 6] = [
    Trouble::DiskFull,
    Trouble::Killed,
    Trouble::Killed,
    Trouble::LogInRefused,
    Trouble::TokenRevoked,
    Trouble::TokenRevoked,
];

// === impl Places ===

impl Places {
    pub fn new() -> Self {
        Self {
            grpc: watch::Sender::new(None),
            callbacks: watch::Sender::new(None),
        }
    }

    pub fn are(&self, gateway: Option<&Gateway>) {
        self.grpc.send_replace(gateway.map(|gateway| gateway.grpc));
        self.callbacks
            .send_replace(gateway.map(|gateway| gateway.callbacks));
    }
}

// === impl Scene ===

impl Scene<'_> {
    /// Lets everything happen, each when so many changes have been asked for.
    pub async fn play(
        &self,
        mut gateway: Gateway,
        mut started: watch::Receiver<usize>,
        seed: u64,
    ) -> (Gateway, Vec<Befallen>) {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6b69_6c6c);
        let mut troubles = TROUBLES.map(|trouble| (random.usize(1..CHANGES), trouble));
        troubles.sort_unstable_by_key(|(moment, _)| *moment);
        let mut befallen = Vec::new();
        for (moment, what) in troubles {
            let reached = started.wait_for(|count| *count >= moment);
            let _count = *timeout(PATIENCE, reached)
                .await
                .expect("in time")
                .expect("clients");
            // Some way into what is under way, not always its first step.
            for _ in 0..random.usize(0..2_000) {
                tokio::task::yield_now().await;
            }
            let from = Instant::now();
            let refusals = random.usize(1..20);
            gateway = self.befall(gateway, what, refusals).await;
            let to = Instant::now();
            befallen.push(Befallen { what, from, to });
        }
        (gateway, befallen)
    }

    async fn befall(&self, gateway: Gateway, what: Trouble, refusals: usize) -> Gateway {
        match what {
            Trouble::Killed => self.restart(gateway).await,
            Trouble::LogInRefused => {
                fs::write(&self.password, "wrong").expect("a file");
                let gateway = self.restart(gateway).await;
                self.until_refused("GATEWAY_CREDENTIALS", 1).await;
                fs::write(&self.password, PASSWORD).expect("a file");
                gateway
            }
            Trouble::TokenRevoked => {
                self.stranger.revoke_token().await;
                gateway
            }
            Trouble::DiskFull => {
                self.disk.fill_entirely();
                self.until_refused("JOURNAL_UNAVAILABLE", refusals).await;
                self.disk.empty();
                gateway
            }
        }
    }

    async fn restart(&self, gateway: Gateway) -> Gateway {
        self.places.are(None);
        gateway.kill().await;
        let gateway = self.setup.start().await;
        self.places.are(Some(&gateway));
        gateway
    }

    /// Asks for changes of devices that are no order's, until so many were refused for this
    /// reason.
    async fn until_refused(&self, reason: &str, refusals: usize) {
        let mut target: Target = self.places.grpc.subscribe();
        let mut client = connect(&mut target).await;
        let asking = async {
            let mut refused_so_far = 0;
            for number in NOBODYS.. {
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
        timeout(PATIENCE, asking).await.expect("it refuses one");
    }
}
