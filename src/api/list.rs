//! The paged lists (AIP-158): what is asked for, and the tokens between pages.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    convert::{
        change_to_proto, outcome_to_proto, pending_to_proto, result_to_proto, state_of, time_of,
    },
    lookup::Names,
    status::Failure,
};
use crate::{
    domain::{
        change::ChangeState,
        identifier::{DeviceId, Kind},
        matching::MatchKey,
        names::{AccountName, ChangeId},
        violation::{Path, Violations},
    },
    journal::{ChangeFilter, ChangeName, Journal, Place, ResultEvent, Target, What},
    proto,
};

/// Events that one page looks at, at most; with rare matches it may be short.
const MAX_SCANNED: usize = 4_000;
/// Events that are read at a time.
const READ: usize = 500;

/// Where a page of results begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Results(Place),
    Pending(u32),
}

/// What results are asked for.
struct ResultFilter {
    outcomes: Vec<proto::Outcome>,
    wants_results: bool,
    wants_pending: bool,
    device: Option<MatchKey>,
}

// --- ListChanges ----------------------------------------------------------

pub(super) async fn changes(
    journal: &dyn Journal,
    request: proto::ListChangesRequest,
) -> Result<proto::ListChangesResponse, Failure> {
    let page = journal.changes(change_filter(&request)?).await?;
    let filters = fingerprint(&proto::ListChangesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request
    });
    Ok(proto::ListChangesResponse {
        changes: page.changes.iter().map(change_to_proto).collect(),
        next_page_token: page
            .next
            .map(|next| page_token(filters, &[next]))
            .unwrap_or_default(),
    })
}

fn change_filter(request: &proto::ListChangesRequest) -> Result<ChangeFilter, Failure> {
    let mut violations = Violations::default();
    let limit = page_size(request.page_size, 50, 500, &mut violations);
    let account = match request.account_name.as_str() {
        "" => None,
        name => violations.take(Path::root("account_name"), AccountName::parse(name)),
    };
    let mut states: Vec<Option<ChangeState>> = Vec::new();
    for (index, state) in request.states.iter().enumerate() {
        match proto::ChangeState::try_from(*state) {
            Ok(state) => states.push(state_of(state)),
            Err(_) => violations.add(Path::root("states").at(index), "is no state"),
        }
    }
    // The unspecified one means any.
    let states = states
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .unwrap_or_default();
    let mut time = |name, time: &Option<prost_types::Timestamp>| {
        let read = (*time).map(|time| time_of(time).ok_or("is out of range"))?;
        violations.take(Path::root(name), read)
    };
    let created_from = time("create_time_after", &request.create_time_after);
    let created_before = time("create_time_before", &request.create_time_before);
    let device = device(request.device.as_ref(), &mut violations);
    let filters = fingerprint(&proto::ListChangesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let after = match read_page_token(&request.page_token, filters, &mut violations).as_deref() {
        Some([after]) => Some(*after),
        _ => None,
    };
    violations
        .finish(Some(ChangeFilter {
            account,
            states,
            created_from,
            created_before,
            device,
            after,
            limit,
        }))
        .map_err(Failure::fields)
}

// --- ListDeviceResults ----------------------------------------------------

pub(super) async fn device_results(
    journal: &dyn Journal,
    request: proto::ListDeviceResultsRequest,
) -> Result<proto::ListDeviceResultsResponse, Failure> {
    let names = Names {
        change_id: &request.change_id,
        request_id: &request.request_id,
        ..Names::default()
    };
    let name = names.require()?;
    let filters = fingerprint(&proto::ListDeviceResultsRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    });
    let mut violations = Violations::default();
    let limit = page_size(request.page_size, 100, 1_000, &mut violations);
    let filter = ResultFilter::read(&request, &mut violations);
    let token = read_page_token(&request.page_token, filters, &mut violations);
    violations.finish(Some(())).map_err(Failure::fields)?;

    let change = journal.change(name.clone()).await?;
    let change_id = change.map(|change| change.change_id);
    let target = match (name, change_id) {
        (ChangeName::Request(id), _) => Target::Request(id),
        (_, Some(id)) => Target::Change(id),
        (_, None) => return Err(Failure::not_found()),
    };
    let mut page = proto::ListDeviceResultsResponse::default();
    let mut next = Some(filter.begin(token.as_deref()));
    if let Some(From::Results(after)) = next {
        let after = results(journal, target, after, &filter, limit, &mut page).await?;
        next = match after {
            Some(after) => Some(From::Results(after)),
            None => filter.wants_pending.then_some(From::Pending(0)),
        };
    }
    if let (Some(From::Pending(from)), Some(id)) = (next, change_id) {
        let room = limit - page.device_results.len();
        let from = pending(journal, id, from, &filter, room, &mut page).await?;
        next = from.map(From::Pending);
    } else if change_id.is_none() && matches!(next, Some(From::Pending(_))) {
        next = None;
    }
    page.next_page_token = match next {
        Some(From::Results(place)) => {
            page_token(filters, &[0, place.position, u64::from(place.index)])
        }
        Some(From::Pending(from)) => page_token(filters, &[1, u64::from(from)]),
        None => String::new(),
    };
    Ok(page)
}

/// Adds results to a page; answers where to go on, if there may be more.
async fn results(
    journal: &dyn Journal,
    target: Target,
    mut after: Place,
    filter: &ResultFilter,
    limit: usize,
    page: &mut proto::ListDeviceResultsResponse,
) -> Result<Option<Place>, Failure> {
    for _ in 0..MAX_SCANNED / READ {
        let read = journal.events(target.clone(), after, READ).await?;
        for event in &read.events {
            if page.device_results.len() == limit {
                return Ok(Some(after));
            }
            after = event.place;
            if let What::Result(result) = &event.what
                && filter.takes(result)
            {
                page.device_results.push(listed(result));
            }
        }
        if read.is_end {
            return Ok(None);
        }
    }
    Ok(Some(after))
}

/// A result with what is known of it now: the device that it was looked up to be of, too. A watch
/// tells it as it was told first.
fn listed(result: &ResultEvent) -> proto::DeviceResult {
    let device = result.device.as_ref().or(result.named.as_ref()).cloned();
    let known = ResultEvent {
        device,
        ..result.clone()
    };
    result_to_proto(&known, false)
}

/// Adds pending devices to a page; answers where to go on, if there may be
/// more.
async fn pending(
    journal: &dyn Journal,
    change_id: ChangeId,
    mut from: u32,
    filter: &ResultFilter,
    room: usize,
    page: &mut proto::ListDeviceResultsResponse,
) -> Result<Option<u32>, Failure> {
    for _ in 0..MAX_SCANNED / READ {
        let devices = journal.pending_devices(change_id, from, READ).await?;
        let is_end = devices.len() < READ;
        for device in &devices {
            if page.pending_devices.len() == room {
                return Ok(Some(from));
            }
            from = device.index + 1;
            if filter.names(&device.sent.ids) {
                page.pending_devices.push(pending_to_proto(device));
            }
        }
        if is_end {
            return Ok(None);
        }
    }
    Ok(Some(from))
}

// === impl ResultFilter ===

impl ResultFilter {
    fn read(request: &proto::ListDeviceResultsRequest, violations: &mut Violations) -> Self {
        let mut outcomes = Vec::new();
        for (index, outcome) in request.outcomes.iter().enumerate() {
            match proto::Outcome::try_from(*outcome) {
                Ok(outcome) => outcomes.push(outcome),
                Err(_) => violations.add(Path::root("outcomes").at(index), "is no outcome"),
            }
        }
        Self {
            wants_results: !outcomes.is_empty() || !request.pending,
            wants_pending: request.pending,
            outcomes,
            device: device(request.device.as_ref(), violations).map(|id| MatchKey::of(&id)),
        }
    }

    /// Where the page that a token names begins.
    fn begin(&self, token: Option<&[u64]>) -> From {
        match token {
            Some([0, position, index]) => From::Results(Place {
                position: *position,
                index: u32::try_from(*index).unwrap_or(u32::MAX),
            }),
            Some([1, from]) => From::Pending(u32::try_from(*from).unwrap_or(u32::MAX)),
            _ if self.wants_results => From::Results(Place::START),
            _ => From::Pending(0),
        }
    }

    fn takes(&self, result: &ResultEvent) -> bool {
        let outcome = outcome_to_proto(result.report.outcome);
        let any = self.outcomes.is_empty() || self.outcomes.contains(&proto::Outcome::Unspecified);
        let reported = |key: &MatchKey| {
            let named = result.report.device_ids.iter();
            named
                .filter_map(MatchKey::of_reported)
                .any(|id| id.is_same(key))
        };
        let device = result.device.as_ref().or(result.named.as_ref());
        let sent = device.map(|(_, sent)| &sent.ids);
        (any || self.outcomes.contains(&outcome))
            && (self.device.as_ref().is_none_or(reported)
                || sent.is_some_and(|ids| self.names(ids)))
    }

    fn names(&self, ids: &[DeviceId]) -> bool {
        let named = |key: &MatchKey| ids.iter().any(|id| MatchKey::of(id).is_same(key));
        self.device.as_ref().is_none_or(named)
    }
}

// --- What both have -------------------------------------------------------

fn page_size(asked: i32, default: usize, most: usize, violations: &mut Violations) -> usize {
    match usize::try_from(asked) {
        Ok(0) => default,
        Ok(size) => size.min(most),
        Err(_) => {
            violations.add(Path::root("page_size"), "must not be negative");
            default
        }
    }
}

fn device(id: Option<&proto::DeviceId>, violations: &mut Violations) -> Option<DeviceId> {
    let (id, path) = (id?, Path::root("device"));
    let kind = violations.take(path.field("kind"), id.kind.parse::<Kind>())?;
    violations.take(path.field("id"), DeviceId::new(kind, id.id.as_str()))
}

/// What a page token is good for: these filters, and no others.
fn fingerprint(request: &impl prost::Message) -> u64 {
    let bytes = request.encode_to_vec();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn page_token(filters: u64, place: &[u64]) -> String {
    let words = std::iter::once(&filters).chain(place);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_be_bytes()).collect();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_page_token(token: &str, filters: u64, violations: &mut Violations) -> Option<Vec<u64>> {
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
            violations.add(Path::root("page_token"), why);
            None
        }
    }
}
