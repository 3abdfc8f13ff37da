//! Lists, shows, replays and drops quarantined callbacks.

use crate::{
    callbacks::{Quarantine, ReplayOutcome},
    domain::violation::FieldReason,
    grpc::error::{ApiError, reason::ErrorReason},
    journal::{QuarantinedCallback, Stored},
    proto,
};

/// Default and maximum number of callbacks in a page.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 500;

/// Lists a page and marks its callbacks as reviewed.
pub(super) async fn list(
    quarantine: &Quarantine,
    request: &proto::ListQuarantinedCallbacksRequest,
) -> Result<Vec<proto::QuarantinedCallback>, ApiError> {
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_negative) => {
            let description = "must not be negative";
            return Err(ApiError::invalid_field("page_size", FieldReason::Value, description));
        }
    };
    let page = quarantine.store.list_quarantined(request.after_id, limit).await?;
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

/// Replays one callback, or all.
pub(super) async fn replay(
    quarantine: &Quarantine,
    request: &proto::ReplayQuarantinedCallbacksRequest,
) -> Result<proto::ReplayQuarantinedCallbacksResponse, ApiError> {
    let replayed = match (request.id, request.all) {
        (0, true) => replay_all(quarantine).await?,
        (id @ 1.., false) => replay_one(quarantine, id).await?,
        _ => {
            let description = "is one of two selectors: set exactly one of id and all";
            return Err(ApiError::invalid_field("id", FieldReason::Combination, description));
        }
    };
    let proto::ReplayQuarantinedCallbacksResponse { stored, still_unusable, .. } = replayed;
    tracing::info!(
        id = request.id,
        stored,
        still_unusable,
        "operator replayed quarantined callbacks"
    );
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
