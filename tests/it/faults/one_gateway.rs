//! One gateway with an embedded journal.

use std::sync::Arc;

use super::{
    deployment::{Deployment, Environment, InjectedFault, random_refusals},
    observations::Observations,
    post_run::PostRun,
};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Gateway, Setup, TestDir},
};

/// The faults of a run.
pub const FAULTS: [InjectedFault; 6] = [
    InjectedFault::DiskFull,
    InjectedFault::Killed,
    InjectedFault::Killed,
    InjectedFault::LoginRefused,
    InjectedFault::TokenRevoked,
    InjectedFault::TokenRevoked,
];

/// One gateway with an embedded journal.
pub struct OneGateway {
    environment: Environment,
    directory: TestDir,
    disk: Arc<FaultyDisk>,
    setup: Setup,
    gateway: Gateway,
}

impl Deployment for OneGateway {
    async fn start(environment: Environment) -> Self {
        let directory = TestDir::new();
        let disk = FaultyDisk::new(directory.path());
        let setup = disk.attach(environment.setup(&directory));
        let gateway = setup.start().await;
        environment.addresses.set([&gateway].into_iter());
        Self { environment, directory, disk: Arc::new(disk), setup, gateway }
    }

    async fn inject(&mut self, fault: InjectedFault, random: &mut fastrand::Rng) {
        match fault {
            InjectedFault::Killed => self.restart().await,
            InjectedFault::LoginRefused => {
                self.environment.use_wrong_password();
                self.restart().await;
                self.environment.probe_until_refused("GATEWAY_CREDENTIALS", 1).await;
                self.environment.use_right_password();
            }
            InjectedFault::TokenRevoked => self.environment.foreign_client.revoke_token().await,
            InjectedFault::DiskFull => {
                self.disk.fill_entirely();
                let refusals = random_refusals(random);
                self.environment.probe_until_refused("JOURNAL_UNAVAILABLE", refusals).await;
                self.disk.empty();
            }
            _ => panic!("{fault:?} is a fault of replicas"),
        }
    }

    fn disks(&self) -> Vec<Arc<FaultyDisk>> {
        vec![Arc::clone(&self.disk)]
    }

    async fn finish(self, observations: &Observations, seed: u64) -> Vec<String> {
        let post_run = PostRun {
            setup: &self.setup,
            disk: &self.disk,
            directory: &self.directory,
            observations,
        };
        post_run.run(self.gateway, seed).await
    }
}

impl OneGateway {
    async fn restart(&mut self) {
        self.environment.addresses.set([].into_iter());
        self.gateway.kill().await;
        self.gateway = self.setup.start().await;
        self.environment.addresses.set([&self.gateway].into_iter());
    }
}
