//! The registrations and the callbacks in `GetStatus`.

use thingspace_settings::Choice as _;
use tokio::time::timeout;

use crate::{
    callbacks::RecentCallback,
    grpc::operator::{Operator, READ_TIMEOUT, signed},
    proto,
    telemetry::RejectionReason,
};

impl Operator {
    /// Returns the registrations. Empty if the journal cannot be read in time.
    pub(super) async fn registrations(&self) -> Vec<proto::CallbackRegistration> {
        let read = timeout(READ_TIMEOUT, self.registrations.read()).await;
        let statuses = read.ok().and_then(Result::ok).unwrap_or_default();
        let statuses = statuses.into_iter().map(|status| proto::CallbackRegistration {
            account_name: status.account.to_string(),
            service: status.service.as_str().to_owned(),
            state: status.state,
            register_policy: self.register_policy.name().to_owned(),
            check_time: status.check_time.map(Into::into),
            last_error: status.last_error,
        });
        statuses.collect()
    }

    pub(super) fn callback_counts(&self) -> Vec<proto::CallbackCount> {
        let counts = self.instruments.callback_counts();
        let counts = counts.map(|(outcome, count)| proto::CallbackCount {
            outcome: outcome.name().to_owned(),
            count: signed(count),
        });
        counts.collect()
    }

    pub(super) fn recent_callbacks(&self) -> Vec<proto::RecentCallback> {
        self.recent_callbacks.list().into_iter().map(to_proto).collect()
    }
}

fn to_proto(callback: RecentCallback) -> proto::RecentCallback {
    proto::RecentCallback {
        receive_time: Some(callback.time.into()),
        service: callback.service,
        account_name: callback.account,
        outcome: callback.outcome.name().to_owned(),
        reason: callback.reason.map(RejectionReason::name).unwrap_or_default().to_owned(),
        quarantine_id: callback.quarantine_id.unwrap_or_default(),
    }
}
