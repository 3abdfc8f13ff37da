//! The list RPCs: parse filters, read pages.

use prost::Message as _;

use crate::{
    domain::{
        identifier::{DeviceId, IdentifierKind},
        matching::MatchKey,
        newtypes::{AccountName, ChangeId},
        violation::{FieldPath, FieldReason, Violations},
    },
    grpc::{
        convert::{
            change_to_proto, device_to_proto, outcome_to_proto, result_to_proto, state_from_proto,
            time_from_proto, type_from_proto,
        },
        error::ApiError,
        pagination::{
            PAGE_BYTES, decode_page_token, encode_page_token, hash_filters, parse_page_size,
        },
        selector::{AllowedSelectors, SelectorFields},
    },
    journal::{
        ChangeFilter, ChangeSelector, Cursor, DeviceFilter, DeviceOutcome, EventPayload, Journal,
        ResultEvent, WatchTarget,
    },
    proto,
};

/// Maximum number of events scanned for one page. With rare matches, a page may be short.
const MAX_SCANNED: usize = 4_000;
/// Number of events read at a time.
const SCAN_BATCH_SIZE: usize = 500;

/// Filter of ListDeviceResults.
struct ResultFilter {
    /// Any outcome if empty.
    outcomes: Vec<proto::Outcome>,
    device: Option<MatchKey>,
}

// --- ListChanges ----------------------------------------------------------

pub(super) async fn list_changes(
    journal: &dyn Journal,
    request: proto::ListChangesRequest,
) -> Result<proto::ListChangesResponse, ApiError> {
    let filters = hash_filters(&proto::ListChangesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let page = journal.changes(change_filter(&request, filters)?).await?;
    Ok(proto::ListChangesResponse {
        changes: page.changes.iter().map(change_to_proto).collect(),
        next_page_token: page
            .next
            .map(|next| encode_page_token(filters, &[next]))
            .unwrap_or_default(),
    })
}

fn change_filter(
    request: &proto::ListChangesRequest,
    filters: u64,
) -> Result<ChangeFilter, ApiError> {
    let mut violations = Violations::default();
    let limit = parse_page_size(request.page_size, 50, 500, &mut violations);
    let account = match request.account_name.as_str() {
        "" => None,
        name => violations.ok_or_add(FieldPath::root("account_name"), AccountName::parse(name)),
    };
    let states = parse_enum_filter("states", &request.states, state_from_proto, &mut violations);
    let types = &request.change_types;
    let change_types = parse_enum_filter("change_types", types, type_from_proto, &mut violations);
    let mut time = |name, time: &Option<prost_types::Timestamp>| {
        let parsed = (*time).map(time_from_proto);
        if parsed == Some(None) {
            violations.add(FieldPath::root(name), FieldReason::Value, "is out of range");
        }
        parsed.flatten()
    };
    let created_from = time("create_time_after", &request.create_time_after);
    let created_before = time("create_time_before", &request.create_time_before);
    let device = parse_device(request.device.as_ref(), &mut violations);
    let after = match decode_page_token(&request.page_token, filters, &mut violations).as_deref() {
        Some([after]) => Some(*after),
        _ => None,
    };
    violations
        .into_result(Some(ChangeFilter {
            account,
            states,
            change_types,
            created_from,
            created_before,
            device,
            after,
            limit,
        }))
        .map_err(ApiError::invalid_fields)
}

// --- ListDevices ----------------------------------------------------------

pub(super) async fn list_devices(
    journal: &dyn Journal,
    request: proto::ListDevicesRequest,
) -> Result<proto::ListDevicesResponse, ApiError> {
    let filters = hash_filters(&proto::ListDevicesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let (change_id, filter) = device_filter(&request, filters)?;
    // The filter reads one device more, to detect a next page.
    let limit = filter.limit - 1;
    let devices = journal.devices(change_id, filter).await?;
    if devices.is_empty() && journal.change(ChangeSelector::Id(change_id)).await?.is_none() {
        return Err(ApiError::change_not_found());
    }
    let mut page = proto::ListDevicesResponse::default();
    let mut bytes = 0;
    for device in &devices {
        if page.devices.len() == limit || bytes >= PAGE_BYTES {
            page.next_page_token = encode_page_token(filters, &[u64::from(device.index)]);
            break;
        }
        let device = device_to_proto(device);
        bytes += device.encoded_len();
        page.devices.push(device);
    }
    Ok(page)
}

fn device_filter(
    request: &proto::ListDevicesRequest,
    filters: u64,
) -> Result<(ChangeId, DeviceFilter), ApiError> {
    let mut violations = Violations::default();
    let change_id =
        violations.ok_or_add(FieldPath::root("change_id"), ChangeId::parse(&request.change_id));
    let limit = parse_page_size(request.page_size, 100, 1_000, &mut violations);
    let outcomes = parse_enum_filter(
        "outcomes",
        &request.outcomes,
        |outcome| match outcome {
            proto::DeviceOutcome::Unspecified => None,
            proto::DeviceOutcome::Pending => Some(DeviceOutcome::Pending),
            proto::DeviceOutcome::Succeeded => Some(DeviceOutcome::Succeeded),
            proto::DeviceOutcome::Failed => Some(DeviceOutcome::Failed),
        },
        &mut violations,
    );
    let device = parse_device(request.device.as_ref(), &mut violations);
    let from = match decode_page_token(&request.page_token, filters, &mut violations).as_deref() {
        Some([from]) => u32::try_from(*from).unwrap_or(u32::MAX),
        _ => 0,
    };
    let filter = DeviceFilter { outcomes, device, from, limit: limit + 1 };
    violations
        .into_result(change_id.map(|change_id| (change_id, filter)))
        .map_err(ApiError::invalid_fields)
}

// --- ListDeviceResults ----------------------------------------------------

pub(super) async fn list_device_results(
    journal: &dyn Journal,
    request: proto::ListDeviceResultsRequest,
) -> Result<proto::ListDeviceResultsResponse, ApiError> {
    let selector = SelectorFields {
        change_id: &request.change_id,
        request_id: &request.request_id,
        selectors: AllowedSelectors::Ids,
        ..SelectorFields::default()
    };
    let selector = selector.parse_required()?;
    let filters = hash_filters(&proto::ListDeviceResultsRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let mut violations = Violations::default();
    let limit = parse_page_size(request.page_size, 100, 1_000, &mut violations);
    let filter = ResultFilter::from_request(&request, &mut violations);
    let after = match decode_page_token(&request.page_token, filters, &mut violations).as_deref() {
        Some([position, index]) => {
            Cursor { position: *position, index: u32::try_from(*index).unwrap_or(u32::MAX) }
        }
        _ => Cursor::START,
    };
    violations.into_result(Some(())).map_err(ApiError::invalid_fields)?;

    let target = match selector {
        ChangeSelector::Request(id) => WatchTarget::Request(id),
        selector => match journal.change(selector).await? {
            Some(change) => WatchTarget::Change(change.change_id),
            None => return Err(ApiError::change_not_found()),
        },
    };
    let mut page = proto::ListDeviceResultsResponse::default();
    let mut remaining_bytes = PAGE_BYTES;
    let next = scan_results(journal, target, after, &filter, |result| {
        if page.device_results.len() == limit || remaining_bytes == 0 {
            return false;
        }
        let result = with_resolved_device(result, request.include_raw);
        remaining_bytes = remaining_bytes.saturating_sub(result.encoded_len());
        page.device_results.push(result);
        true
    });
    if let Some(next) = next.await? {
        page.next_page_token = encode_page_token(filters, &[next.position, u64::from(next.index)]);
    }
    Ok(page)
}

/// Passes matching results to `push` until it returns false. Returns the cursor of the next page, if there may
/// be one.
async fn scan_results(
    journal: &dyn Journal,
    target: WatchTarget,
    mut after: Cursor,
    filter: &ResultFilter,
    mut push: impl FnMut(&ResultEvent) -> bool,
) -> Result<Option<Cursor>, ApiError> {
    for _ in 0..MAX_SCANNED / SCAN_BATCH_SIZE {
        let read = journal.events(target.clone(), after, SCAN_BATCH_SIZE).await?;
        for event in &read.events {
            if let EventPayload::Result(result) = &event.payload
                && filter.is_match(result)
                && !push(result)
            {
                return Ok(Some(after));
            }
            after = event.cursor;
        }
        if read.is_end {
            return Ok(None);
        }
    }
    Ok(Some(after))
}

/// Converts a result, with the device that a later lookup resolved. A watch returns the result as it was first
/// delivered.
fn with_resolved_device(result: &ResultEvent, include_raw: bool) -> proto::DeviceResult {
    let device = result.device.as_ref().or(result.resolved_device.as_ref()).cloned();
    let resolved = ResultEvent { device, ..result.clone() };
    result_to_proto(&resolved, include_raw)
}

impl ResultFilter {
    fn from_request(
        request: &proto::ListDeviceResultsRequest,
        violations: &mut Violations,
    ) -> Self {
        let some = |outcome| (outcome != proto::Outcome::Unspecified).then_some(outcome);
        Self {
            outcomes: parse_enum_filter("outcomes", &request.outcomes, some, violations),
            device: parse_device(request.device.as_ref(), violations)
                .map(|id| MatchKey::from_id(&id)),
        }
    }

    fn is_match(&self, result: &ResultEvent) -> bool {
        let outcome = outcome_to_proto(result.report.outcome);
        let reported = |key: &MatchKey| {
            let named = result.report.device_ids.iter();
            named.filter_map(MatchKey::from_reported).any(|id| id.is_same(key))
        };
        let device = result.device.as_ref().or(result.resolved_device.as_ref());
        let sent = |key: &MatchKey| {
            let ids = device.iter().flat_map(|(_, sent)| &sent.ids);
            ids.map(MatchKey::from_id).any(|id| id.is_same(key))
        };
        (self.outcomes.is_empty() || self.outcomes.contains(&outcome))
            && self.device.as_ref().is_none_or(|key| reported(key) || sent(key))
    }
}

// --- Filters --------------------------------------------------------------

/// Parses a filter of enum values. An empty filter, or one with the unspecified value, for which `convert`
/// returns `None`, matches any.
fn parse_enum_filter<P: TryFrom<i32>, T>(
    field: &'static str,
    values: &[i32],
    convert: impl Fn(P) -> Option<T>,
    violations: &mut Violations,
) -> Vec<T> {
    let mut all: Option<Vec<T>> = Some(Vec::new());
    for (index, value) in values.iter().enumerate() {
        match P::try_from(*value).map(&convert) {
            Ok(Some(value)) => {
                if let Some(all) = &mut all {
                    all.push(value);
                }
            }
            Ok(None) => all = None,
            Err(_) => {
                let description = "is not a value of this enum";
                violations.add(FieldPath::root(field).at(index), FieldReason::Value, description);
            }
        }
    }
    all.unwrap_or_default()
}

fn parse_device(id: Option<&proto::DeviceId>, violations: &mut Violations) -> Option<DeviceId> {
    let (id, path) = (id?, FieldPath::root("device"));
    let kind = violations.ok_or_add(path.field("kind"), id.kind.parse::<IdentifierKind>())?;
    violations.ok_or_add(path.field("id"), DeviceId::new(kind, id.id.as_str()))
}
