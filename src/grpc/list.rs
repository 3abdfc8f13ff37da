//! The list RPCs: parse filters, read pages.

use std::mem::take;

use prost::Message as _;

use crate::{
    domain::{
        clock::Timestamp,
        identifier::{DeviceId, IdentifierKind, ReportedId},
        matching::MatchKey,
        newtypes::{AccountName, ChangeId},
        violation::{FieldPath, FieldReason, Violations},
    },
    grpc::{
        call_audit::CallAudit,
        convert::{change_to_proto, device_to_proto},
        error::ApiError,
        message::RequestMessage,
        pagination::{PAGE_BYTES, PageRequest},
        selector::SelectorFields,
        visibility::{ListScope, Visibility},
    },
    journal::{
        ChangeFilter, ChangeSelector, Cursor, DeviceFilter, DeviceOutcome, EventPayload,
        EventQuery, Journal, JournalError, WatchTarget,
    },
    operations, proto,
};

/// Maximum number of events scanned for one page. With rare matches, a page may be short.
const MAX_SCANNED: usize = 4_000;
/// Number of events read at a time.
const SCAN_BATCH_SIZE: usize = 500;

pub(super) async fn list_changes(
    visible: &Visibility<'_>,
    audit: &CallAudit,
    request: proto::ListChangesRequest,
) -> Result<proto::ListChangesResponse, ApiError> {
    let (account, filter, page) = request.parse()?;
    audit.set_account(account.as_ref());
    let ListScope { account, accounts } = visible.list_scope(account)?;
    let found = visible.journal.changes(ChangeFilter { account, accounts, ..filter }).await?;
    Ok(proto::ListChangesResponse {
        changes: found.changes.iter().map(change_to_proto).collect(),
        next_page_token: found.next.map(|next| page.next_token(&[next])).unwrap_or_default(),
    })
}

pub(super) async fn list_devices(
    visible: &Visibility<'_>,
    audit: &CallAudit,
    request: proto::ListDevicesRequest,
) -> Result<proto::ListDevicesResponse, ApiError> {
    let (change_id, filter, page) = request.parse()?;
    // Before the devices are read: a change that the caller may not see costs no more than one that does not exist.
    let change = visible.change(ChangeSelector::Id(change_id)).await?;
    audit.set_change(change_id, &change.account);
    let devices = visible.journal.devices(change_id, filter).await?;
    if devices.is_empty() {
        // Retention may have removed the change in the meantime.
        visible.change(ChangeSelector::Id(change_id)).await?;
    }
    let mut response = proto::ListDevicesResponse::default();
    let mut bytes = 0;
    for device in &devices {
        if response.devices.len() == page.limit || bytes >= PAGE_BYTES {
            response.next_page_token = page.next_token(&[u64::from(device.index)]);
            break;
        }
        let device = device_to_proto(device)?;
        bytes += device.encoded_len();
        response.devices.push(device);
    }
    Ok(response)
}

pub(super) async fn list_device_results(
    visible: &Visibility<'_>,
    audit: &CallAudit,
    request: proto::ListDeviceResultsRequest,
) -> Result<proto::ListDeviceResultsResponse, ApiError> {
    let include_raw = request.include_raw;
    let ResultFields { selector, outcomes, device, page } = request.parse()?;
    let target = match selector {
        ChangeSelector::Request(id) => WatchTarget::Request(id),
        selector => {
            let change = visible.change(selector).await?;
            audit.set_change(change.change_id, &change.account);
            WatchTarget::Change(change.change_id)
        }
    };
    if matches!(target, WatchTarget::Request(_)) {
        audit.set_account(visible.account_of(&target).await?.as_ref());
    }
    let after = match *page.cursor {
        [position, index] => Cursor { position, index: u32::try_from(index).unwrap_or(u32::MAX) },
        _ => Cursor::START,
    };
    let mut response = proto::ListDeviceResultsResponse::default();
    let mut remaining_bytes = PAGE_BYTES;
    let query = EventQuery {
        raw_json: include_raw,
        resolved_device: true,
        ..EventQuery::new(after, SCAN_BATCH_SIZE)
    };
    let next = scan_results(visible.journal, target, query, |result| {
        if !is_match(&result, &outcomes, device.as_ref()) {
            return true;
        }
        if response.device_results.len() == page.limit || remaining_bytes == 0 {
            return false;
        }
        remaining_bytes = remaining_bytes.saturating_sub(result.encoded_len());
        response.device_results.push(result);
        true
    });
    if let Some(Cursor { position, index }) = next.await? {
        response.next_page_token = page.next_token(&[position, u64::from(index)]);
    }
    Ok(response)
}

/// The results that a list selects.
pub(super) struct ResultFields {
    selector: ChangeSelector,
    /// Any if empty.
    outcomes: Vec<proto::Outcome>,
    device: Option<MatchKey>,
    page: PageRequest,
}

impl RequestMessage for proto::ListChangesRequest {
    type Parsed = (Option<AccountName>, ChangeFilter, PageRequest);

    fn parse(mut self) -> Result<Self::Parsed, ApiError> {
        let mut violations = Violations::default();
        let (size, token) = (take(&mut self.page_size), take(&mut self.page_token));
        let page = PageRequest::parse(size, &token, &self, 50, 500, &mut violations);
        let account = match self.account_name.as_str() {
            "" => None,
            name => violations.ok_or_add("account_name", AccountName::parse(name)),
        };
        let states = parse_enum_filter(
            "states",
            &self.states,
            proto::ChangeState::to_domain,
            &mut violations,
        );
        let types = &self.change_types;
        let change_types =
            parse_enum_filter("change_types", types, operations::from_proto, &mut violations);
        let mut time = |name, time: Option<prost_types::Timestamp>| {
            let parsed = Timestamp::try_from(time?).ok();
            if parsed.is_none() {
                violations.add(name, FieldReason::Value, "is out of range");
            }
            parsed
        };
        let filter = ChangeFilter {
            states,
            change_types,
            created_from: time("create_time_after", self.create_time_after),
            created_before: time("create_time_before", self.create_time_before),
            device: parse_device(self.device, &mut violations),
            after: page.cursor.first().copied(),
            limit: page.limit,
            ..ChangeFilter::default()
        };
        let filter = violations.into_result(Some(filter)).map_err(ApiError::invalid_fields)?;
        Ok((account, filter, page))
    }
}

impl RequestMessage for proto::ListDevicesRequest {
    type Parsed = (ChangeId, DeviceFilter, PageRequest);

    fn parse(mut self) -> Result<Self::Parsed, ApiError> {
        let mut violations = Violations::default();
        let (size, token) = (take(&mut self.page_size), take(&mut self.page_token));
        let page = PageRequest::parse(size, &token, &self, 100, 1_000, &mut violations);
        let change_id = violations.ok_or_add("change_id", ChangeId::parse(&self.change_id));
        let outcome = |outcome| match outcome {
            proto::DeviceOutcome::Unspecified => None,
            proto::DeviceOutcome::Pending => Some(DeviceOutcome::Pending),
            proto::DeviceOutcome::Succeeded => Some(DeviceOutcome::Succeeded),
            proto::DeviceOutcome::Failed => Some(DeviceOutcome::Failed),
        };
        let filter = DeviceFilter {
            outcomes: parse_enum_filter("outcomes", &self.outcomes, outcome, &mut violations),
            device: parse_device(self.device, &mut violations),
            from: page.cursor.first().map_or(0, |from| u32::try_from(*from).unwrap_or(u32::MAX)),
            // One more, to detect a next page.
            limit: page.limit + 1,
        };
        let change_id = violations.into_result(change_id).map_err(ApiError::invalid_fields)?;
        Ok((change_id, filter, page))
    }
}

impl RequestMessage for proto::ListDeviceResultsRequest {
    type Parsed = ResultFields;

    fn parse(mut self) -> Result<Self::Parsed, ApiError> {
        let selector = SelectorFields {
            change_id: &self.change_id,
            request_id: &self.request_id,
            account_and_key: None,
        };
        let selector = selector.parse_required()?;
        let mut violations = Violations::default();
        let (size, token) = (take(&mut self.page_size), take(&mut self.page_token));
        let page = PageRequest::parse(size, &token, &self, 100, 1_000, &mut violations);
        let outcome = |outcome| (outcome != proto::Outcome::Unspecified).then_some(outcome);
        let outcomes = parse_enum_filter("outcomes", &self.outcomes, outcome, &mut violations);
        let device = parse_device(self.device, &mut violations).map(|id| MatchKey::from_id(&id));
        violations.into_result(Some(())).map_err(ApiError::invalid_fields)?;
        Ok(ResultFields { selector, outcomes, device, page })
    }
}

/// Passes results to `push` until it returns false. A watch returns a result as it was first delivered; here it
/// has the device that a later lookup resolved. Returns the cursor of the next page, if there may be one.
async fn scan_results(
    journal: &dyn Journal,
    target: WatchTarget,
    mut query: EventQuery,
    mut push: impl FnMut(proto::DeviceResult) -> bool,
) -> Result<Option<Cursor>, ApiError> {
    for _ in 0..MAX_SCANNED / SCAN_BATCH_SIZE {
        let read = journal.events(target.clone(), query).await?;
        for event in &read.events {
            if let EventPayload::Result(result) = &event.payload {
                let result = result.to_proto(query.raw_json, true).map_err(JournalError::from)?;
                if !push(result) {
                    return Ok(Some(query.after));
                }
            }
            query.after = event.cursor;
        }
        if read.is_end {
            return Ok(None);
        }
    }
    Ok(Some(query.after))
}

/// True if a result has one of the outcomes, any if empty, and names or belongs to the device.
fn is_match(
    result: &proto::DeviceResult,
    outcomes: &[proto::Outcome],
    key: Option<&MatchKey>,
) -> bool {
    let is_device = |key: &MatchKey| {
        let mut ids = result.device_ids.iter().chain(&result.sent_ids);
        ids.any(|id| {
            let id = ReportedId { kind: id.kind.clone(), id: id.id.clone() };
            MatchKey::from_reported(&id).is_some_and(|id| id.is_same(key))
        })
    };
    (outcomes.is_empty() || outcomes.contains(&result.outcome())) && key.is_none_or(is_device)
}

/// Parses a filter of enum values. An empty filter, or one with the unspecified value, for which `convert`
/// returns `None`, matches any.
fn parse_enum_filter<P: TryFrom<i32>, T>(
    field: &'static str,
    values: &[i32],
    convert: impl Fn(P) -> Option<T>,
    violations: &mut Violations,
) -> Vec<T> {
    let (mut filter, mut matches_any) = (Vec::new(), false);
    for (index, value) in values.iter().enumerate() {
        match P::try_from(*value).map(&convert) {
            Ok(Some(value)) => filter.push(value),
            Ok(None) => matches_any = true,
            Err(_) => {
                let description = "is not a value of this enum";
                violations.add(FieldPath::from(field).at(index), FieldReason::Value, description);
            }
        }
    }
    if matches_any { Vec::new() } else { filter }
}

fn parse_device(id: Option<proto::DeviceId>, violations: &mut Violations) -> Option<DeviceId> {
    let (id, path) = (id?, FieldPath::from("device"));
    let kind = violations.ok_or_add(path.field("kind"), id.kind.parse::<IdentifierKind>())?;
    violations.ok_or_add(path.field("id"), DeviceId::new(kind, id.id))
}
