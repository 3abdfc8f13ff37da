//! Lists, shows, replays and drops quarantined callbacks.

use crate::{
    callbacks::{Quarantine, ReplayOutcome},
    domain::violation::FieldReason,
    grpc::{
        error::{ApiError, reason::ErrorReason},
        message::RequestMessage,
    },
    journal::{QuarantinedCallback, Stored},
    proto,
};

/// Default and maximum number of callbacks in a page.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 500;

impl RequestMessage for proto::ListQuarantinedCallbacksRequest {
    /// The ID before the first callback, and the maximum number of callbacks.
    type Parsed = (u64, usize);

    fn parse(self) -> Result<Self::Parsed, ApiError> {
        let limit = match usize::try_from(self.page_size) {
            Ok(0) => DEFAULT_PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_negative) => {
                let description = "must not be negative";
                return Err(ApiError::invalid_field("page_size", FieldReason::Value, description));
            }
        };
        Ok((self.after_id, limit))
    }
}

impl RequestMessage for proto::ReplayQuarantinedCallbacksRequest {
    /// The ID of the only callback. `None` stands for all.
    type Parsed = Option<u64>;

    fn parse(self) -> Result<Self::Parsed, ApiError> {
        match (self.id, self.all) {
            (0, true) => Ok(None),
            (id @ 1.., false) => Ok(Some(id)),
            _ => {
                let description = "is one of two selectors: set exactly one of id and all";
                Err(ApiError::invalid_field("id", FieldReason::Combination, description))
            }
        }
    }
}

/// Lists a page and marks its callbacks as reviewed.
pub(super) async fn list(
    quarantine: &Quarantine,
    after_id: u64,
    limit: usize,
) -> Result<Vec<proto::QuarantinedCallback>, ApiError> {
    let page = quarantine.store.list_quarantined(after_id, limit).await?;
    if let Some((last, _)) = page.last() {
        quarantine.store.mark_quarantined_reviewed(*last).await?;
    }
    Ok(page.iter().map(|(id, callback)| to_proto(*id, callback)).collect())
}

/// Returns a callback with its body.
pub(super) async fn get(
    quarantine: &Quarantine,
    id: u64,
) -> Result<proto::QuarantinedCallback, ApiError> {
    let found = quarantine.store.list_quarantined(id.saturating_sub(1), 1).await?;
    let Some((_, callback)) = found.into_iter().find(|(found, _)| *found == id) else {
        return Err(not_found());
    };
    let mut shown = to_proto(id, &callback);
    shown.body = callback.body;
    Ok(shown)
}

/// Replays the callback with this ID, or all.
pub(super) async fn replay(
    quarantine: &Quarantine,
    id: Option<u64>,
) -> Result<proto::ReplayQuarantinedCallbacksResponse, ApiError> {
    let replayed = match id {
        None => replay_all(quarantine).await?,
        Some(id) => replay_one(quarantine, id).await?,
    };
    let proto::ReplayQuarantinedCallbacksResponse { stored, still_unusable, .. } = replayed;
    tracing::info!(id, stored, still_unusable, "operator replayed quarantined callbacks");
    Ok(replayed)
}

async fn replay_all(
    quarantine: &Quarantine,
) -> Result<proto::ReplayQuarantinedCallbacksResponse, ApiError> {
    let totals = quarantine.replay_all().await?;
    let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
    Ok(proto::ReplayQuarantinedCallbacksResponse {
        stored: count(totals.stored),
        duplicates: count(totals.duplicates),
        still_unusable: count(totals.still_unusable),
    })
}

async fn replay_one(
    quarantine: &Quarantine,
    id: u64,
) -> Result<proto::ReplayQuarantinedCallbacksResponse, ApiError> {
    let duplicates = match quarantine.replay(id).await? {
        ReplayOutcome::Stored(Stored::New(_)) => 0,
        ReplayOutcome::Stored(Stored::Duplicate) => 1,
        ReplayOutcome::StillUnusable(reason) => {
            let message = format!("the callback is still unusable: {reason}");
            return Err(ApiError::new(ErrorReason::CallbackUnusable, message));
        }
        ReplayOutcome::NotFound => return Err(not_found()),
    };
    Ok(proto::ReplayQuarantinedCallbacksResponse { stored: 1, duplicates, still_unusable: 0 })
}

pub(super) async fn drop_one(quarantine: &Quarantine, id: u64) -> Result<(), ApiError> {
    if !quarantine.store.drop_quarantined(id).await? {
        return Err(not_found());
    }
    tracing::warn!(id, "operator dropped a quarantined callback");
    Ok(())
}

fn not_found() -> ApiError {
    ApiError::new(ErrorReason::CallbackNotFound, "no quarantined callback has this id")
}

fn to_proto(id: u64, callback: &QuarantinedCallback) -> proto::QuarantinedCallback {
    proto::QuarantinedCallback {
        id,
        receive_time: Some(callback.receive_time.into()),
        reason: callback.reason.clone(),
        service: callback.service.as_ref().map_or("", |name| name.as_str()).to_owned(),
        account_name: callback.account.as_ref().map_or("", |name| name.as_str()).to_owned(),
        body_bytes: i64::try_from(callback.body.len()).unwrap_or(i64::MAX),
        body: Vec::new(),
    }
}
