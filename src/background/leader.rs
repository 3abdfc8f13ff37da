//! Runs jobs on one replica only.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::journal::Coordination;

/// The lease of the replica that runs the jobs.
const LEASE_NAME: &str = "background";
/// Duration of the lease from each extension.
const LEASE: Duration = Duration::from_secs(15);
/// Interval of the attempts to acquire the lease, and of its extensions.
const INTERVAL: Duration = Duration::from_secs(3);
/// Age of the last extension at which the jobs stop, before another replica can acquire the lease.
const STOP_AFTER: Duration = Duration::from_secs(12);

/// A job that one replica runs for all.
pub trait LeaderJob: Send {
    /// Runs the job. It is dropped when this replica loses the lease, and runs anew once it has it again.
    fn run(&mut self) -> impl Future<Output = ()> + Send;
}

/// A function that starts a job.
impl<F: FnMut() -> BoxFuture<'static, ()> + Send> LeaderJob for F {
    async fn run(&mut self) {
        self().await;
    }
}

/// Runs a job while this replica is the leader.
pub async fn run_on_leader(mut is_leader: watch::Receiver<bool>, mut job: impl LeaderJob) {
    while is_leader.wait_for(|is_leader| *is_leader).await.is_ok() {
        let mut lost = is_leader.clone();
        tokio::select! {
            () = job.run() => return,
            _ = lost.wait_for(|is_leader| !is_leader) => {}
        }
    }
}

/// Competes with the other replicas for the lease, and sends the state of this one. Without other replicas, this one
/// is the leader.
pub async fn compete(coordination: Option<Arc<dyn Coordination>>, leader: watch::Sender<bool>) {
    let Some(coordination) = coordination else {
        leader.send_replace(true);
        return leader.closed().await;
    };
    let mut extended: Option<Instant> = None;
    loop {
        let sent = Instant::now();
        match coordination.acquire_lease(LEASE_NAME, LEASE).await {
            Ok(is_held) => extended = is_held.then_some(sent),
            Err(error) => tracing::debug!(%error, "cannot extend the lease of the background jobs"),
        }
        let holds = extended.is_some_and(|extended| extended.elapsed() < STOP_AFTER);
        if leader.send_replace(holds) != holds {
            tracing::info!(
                is_leader = holds,
                "the replica that runs the background jobs has changed"
            );
        }
        sleep(INTERVAL).await;
    }
}
