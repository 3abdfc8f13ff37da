//! Builds access control, and applies changes of the policy and of the keys that callers are trusted by.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    access::{
        AccessControl,
        identity::Authenticator,
        policy::{Policy, ReloadingPolicy},
    },
    app::error::StartError,
    background::FileReloader,
    config::Config,
    domain::clock::Clock,
    grpc::CallerUsages,
    shares::CallerShares,
    telemetry::Telemetry,
    tls::ServerTls,
    watch::Watches,
};

/// Access control, and the limits of callers.
pub(super) struct Access {
    pub(super) control: Arc<AccessControl>,
    /// The usage of the limits of each caller.
    pub(super) usages: Arc<CallerUsages>,
    /// Divides the limits that all callers share.
    pub(super) shares: Arc<CallerShares>,
    /// `None` if clients are not authenticated.
    policy: Option<Arc<ReloadingPolicy>>,
}

impl Access {
    /// Loads the policy and the keys, and adds their files to the files to reload.
    pub(super) fn build(
        config: &Config,
        clock: &Arc<dyn Clock>,
        telemetry: &Telemetry,
        files: &mut FileReloader,
    ) -> Result<Self, StartError> {
        let (auth, instruments) = (&config.auth, telemetry.instruments());
        let authenticator = Authenticator::new(auth, clock.clone(), instruments.clone(), files)?;
        let policy = auth.policy_file.as_deref();
        let policy =
            policy.map(|path| ReloadingPolicy::load(path, files, instruments)).transpose()?;
        let control = AccessControl::new(authenticator, policy.clone());
        let usages: Arc<CallerUsages> = Arc::default();
        let observed = Arc::clone(&usages);
        telemetry.observe_callers(move || observed.gauges());
        Ok(Self { control, usages, shares: Arc::default(), policy })
    }

    /// Applies the limits of the policy. Returns the jobs that apply those of its successors, keep the keys up to
    /// date, and make streams check the access of their callers.
    pub(super) fn jobs(
        &self,
        watches: &Arc<Watches>,
        tls: Option<&ServerTls>,
    ) -> Vec<BoxFuture<'static, ()>> {
        let mut jobs: Vec<BoxFuture<'static, ()>> = Vec::new();
        jobs.extend(self.follow_policy());
        let control = self.control.clone();
        jobs.push(Box::pin(async move { control.run().await }));
        let (control, checked) = (self.control.clone(), watches.clone());
        jobs.push(Box::pin(async move { control.watch(|| checked.check_access()).await }));
        if let Some(changes) = tls.and_then(ServerTls::subscribe_client_cas) {
            jobs.push(Box::pin(follow_client_cas(changes, watches.clone())));
        }
        jobs
    }

    fn follow_policy(&self) -> Option<BoxFuture<'static, ()>> {
        let mut policies = self.policy.as_ref()?.subscribe();
        let (usages, shares) = (Arc::clone(&self.usages), Arc::clone(&self.shares));
        let apply = move |policy: &Policy| {
            usages.set_callers(policy.callers());
            shares.set_callers(policy.callers().iter().map(|caller| caller.name().clone()));
        };
        apply(&policies.borrow_and_update());
        Some(Box::pin(async move {
            while policies.changed().await.is_ok() {
                apply(&policies.borrow_and_update());
            }
        }))
    }
}

async fn follow_client_cas(mut changes: watch::Receiver<u64>, watches: Arc<Watches>) {
    while changes.changed().await.is_ok() {
        watches.check_access();
    }
}
