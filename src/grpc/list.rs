//! The paged lists (AIP-158): their filters, their pages, and the tokens between pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message as _;

use super::{
    convert::{
        change_to_proto, device_to_proto, outcome_to_proto, result_to_proto, state_from_proto,
        time_from_proto, type_from_proto,
    },
    selector::{AllowedSelectors, SelectorFields},
};
use crate::grpc::error::ApiError;
use crate::{
    domain::{
        identifier::{DeviceId, IdentifierKind},
        matching::MatchKey,
        newtypes::{AccountName, ChangeId},
        violation::{FieldPath, FieldReason, Violations},
    },
    journal::{
        ChangeFilter, ChangeSelector, Cursor, DeviceFilter, DeviceOutcome, EventPayload, Journal,
        ResultEvent, WatchTarget,
    },
    proto,
};

/// Events that one page looks at, at most; with rare matches it may be short.
const MAX_SCANNED: usize = 4_000;
/// Events that are read at a time.
const SCAN_BATCH_SIZE: usize = 500;
/// Bytes of rows after which a page ends early. gRPC clients refuse responses above 4 MiB unless they
/// are configured otherwise; one row is smaller than the other 2 MiB.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Which results are returned.
struct ResultFilter {
    /// Empty for any.
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
    let limit = page_size(request.page_size, 50, 500, &mut violations);
    let account = match request.account_name.as_str() {
        "" => None,
        name => violations.ok_or_add(FieldPath::root("account_name"), AccountName::parse(name)),
    };
    let states = parse_enum_filter("states", &request.states, state_from_proto, &mut violations);
    let types = &request.change_types;
    let change_types = parse_enum_filter("change_types", types, type_from_proto, &mut violations);
    let mut time = |name, time: &Option<prost_types::Timestamp>| {
        let read = (*time).map(time_from_proto);
        if read == Some(None) {
            violations.add(FieldPath::root(name), FieldReason::Value, "is out of range");
        }
        read.flatten()
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
    // One more than the page, to know whether there is a next one.
    let limit = filter.limit - 1;
    let devices = journal.devices(change_id, filter).await?;
    if devices.is_empty()
        && journal
            .change(ChangeSelector::Id(change_id))
            .await?
            .is_none()
    {
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
    let change_id = violations.ok_or_add(
        FieldPath::root("change_id"),
        ChangeId::parse(&request.change_id),
    );
    let limit = page_size(request.page_size, 100, 1_000, &mut violations);
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
    let filter = DeviceFilter {
        outcomes,
        device,
        from,
        limit: limit + 1,
    };
    violations
        .into_result(change_id.map(|change_id| (change_id, filter)))
        .map_err(ApiError::invalid_fields)
}

// --- ListDeviceResults ----------------------------------------------------

pub(super) async fn list_device_results(
    journal: &dyn Journal,
    request: proto::ListDeviceResultsRequest,
) -> Result<proto::ListDeviceResultsResponse, ApiError> {
    let names = SelectorFields {
        change_id: &request.change_id,
        request_id: &request.request_id,
        selectors: AllowedSelectors::Ids,
        ..SelectorFields::default()
    };
    let name = names.parse_required()?;
    let filters = hash_filters(&proto::ListDeviceResultsRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let mut violations = Violations::default();
    let limit = page_size(request.page_size, 100, 1_000, &mut violations);
    let filter = ResultFilter::from_request(&request, &mut violations);
    let after = match decode_page_token(&request.page_token, filters, &mut violations).as_deref() {
        Some([position, index]) => Cursor {
            position: *position,
            index: u32::try_from(*index).unwrap_or(u32::MAX),
        },
        _ => Cursor::START,
    };
    violations
        .into_result(Some(()))
        .map_err(ApiError::invalid_fields)?;

    let target = match name {
        ChangeSelector::Request(id) => WatchTarget::Request(id),
        name => match journal.change(name).await? {
            Some(change) => WatchTarget::Change(change.change_id),
            None => return Err(ApiError::change_not_found()),
        },
    };
    let mut page = proto::ListDeviceResultsResponse::default();
    let mut rest = PAGE_BYTES;
    let next = scan_results(journal, target, after, &filter, |result| {
        if page.device_results.len() == limit || rest == 0 {
            return false;
        }
        let result = with_resolved_device(result, request.include_raw);
        rest = rest.saturating_sub(result.encoded_len());
        page.device_results.push(result);
        true
    });
    if let Some(next) = next.await? {
        page.next_page_token = encode_page_token(filters, &[next.position, u64::from(next.index)]);
    }
    Ok(page)
}

/// Reads results that match until `push` refuses one. Returns where the next page begins, if there
/// may be one.
async fn scan_results(
    journal: &dyn Journal,
    target: WatchTarget,
    mut after: Cursor,
    filter: &ResultFilter,
    mut push: impl FnMut(&ResultEvent) -> bool,
) -> Result<Option<Cursor>, ApiError> {
    for _ in 0..MAX_SCANNED / SCAN_BATCH_SIZE {
        let read = journal
            .events(target.clone(), after, SCAN_BATCH_SIZE)
            .await?;
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

/// A result with the device that is known by now, also where a lookup has found it since. A watch
/// returns the result as it was delivered first.
fn with_resolved_device(result: &ResultEvent, include_raw: bool) -> proto::DeviceResult {
    let device = result
        .device
        .as_ref()
        .or(result.resolved_device.as_ref())
        .cloned();
    let known = ResultEvent {
        device,
        ..result.clone()
    };
    result_to_proto(&known, include_raw)
}

// === impl ResultFilter ===

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
            named
                .filter_map(MatchKey::from_reported)
                .any(|id| id.is_same(key))
        };
        let device = result.device.as_ref().or(result.resolved_device.as_ref());
        let sent = |key: &MatchKey| {
            let ids = device.iter().flat_map(|(_, sent)| &sent.ids);
            ids.map(MatchKey::from_id).any(|id| id.is_same(key))
        };
        (self.outcomes.is_empty() || self.outcomes.contains(&outcome))
            && self
                .device
                .as_ref()
                .is_none_or(|key| reported(key) || sent(key))
    }
}

// --- Common parts ---------------------------------------------------------

/// The values of a filter of enums; empty for any. The unspecified value, for which `known` returns
/// `None`, means any.
fn parse_enum_filter<P: TryFrom<i32>, T>(
    field: &'static str,
    values: &[i32],
    known: impl Fn(P) -> Option<T>,
    violations: &mut Violations,
) -> Vec<T> {
    let mut all: Option<Vec<T>> = Some(Vec::new());
    for (index, value) in values.iter().enumerate() {
        match P::try_from(*value).map(&known) {
            Ok(Some(value)) => {
                if let Some(all) = &mut all {
                    all.push(value);
                }
            }
            Ok(None) => all = None,
            Err(_) => {
                let why = "is not a value of this enum";
                violations.add(FieldPath::root(field).at(index), FieldReason::Value, why);
            }
        }
    }
    all.unwrap_or_default()
}

fn page_size(asked: i32, default: usize, most: usize, violations: &mut Violations) -> usize {
    match usize::try_from(asked) {
        Ok(0) => default,
        Ok(size) => size.min(most),
        Err(_) => {
            let why = "must not be negative";
            violations.add(FieldPath::root("page_size"), FieldReason::Value, why);
            default
        }
    }
}

fn parse_device(id: Option<&proto::DeviceId>, violations: &mut Violations) -> Option<DeviceId> {
    let (id, path) = (id?, FieldPath::root("device"));
    let kind = violations.ok_or_add(path.field("kind"), id.kind.parse::<IdentifierKind>())?;
    violations.ok_or_add(path.field("id"), DeviceId::new(kind, id.id.as_str()))
}

/// A hash of the filters, which must be the same for all pages.
fn hash_filters(request: &impl prost::Message) -> u64 {
    let bytes = request.encode_to_vec();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn encode_page_token(filters: u64, cursor: &[u64]) -> String {
    let words = std::iter::once(&filters).chain(cursor);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode_page_token(token: &str, filters: u64, violations: &mut Violations) -> Option<Vec<u64>> {
    if token.is_empty() {
        return None;
    }
    let words: Option<Vec<u64>> = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        rest.is_empty().then_some(words)
    });
    match words.as_deref() {
        Some([made_for, place @ ..]) if *made_for == filters => Some(place.to_vec()),
        _ => {
            let why = "is not the next_page_token of a call with the same filters";
            violations.add(FieldPath::root("page_token"), FieldReason::Value, why);
            None
        }
    }
}
