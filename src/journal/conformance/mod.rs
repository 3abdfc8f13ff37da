//! What every engine must promise. Each check gets an empty journal, and the
//! means to close it and open it again.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use parking_lot::Mutex;

pub(super) use crate::operations::testing::{esim, iccid};

use super::*;
use crate::{
    callbacks::payload,
    domain::{
        device_states::DeviceCounts,
        refusal::{Refusal, RefusalKind},
        result::Match,
        state::ChangeState,
    },
    operations::{ChangeRequest, testing::five_g_bi},
};

pub(super) mod attribution;
pub(super) mod claims;
pub(super) mod devices;
pub(super) mod forwards;
pub(super) mod lifecycle;
pub(super) mod results;

/// An engine under test.
pub(super) trait Engine: Sync {
    /// Opens the journal: the same one each time.
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>>;
}

pub(super) fn dispatch() -> Transition {
    Transition::Dispatch {
        trace: None,
        already_on_plan: None,
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn five_g(key: &str, meids: &[&str]) -> ChangeRequest {
    five_g_by("meid", key, meids)
}

fn five_g_by(kind: &str, key: &str, ids: &[&str]) -> ChangeRequest {
    let devices: Vec<[(&str, &str); 1]> = ids.iter().map(|id| [(kind, *id)]).collect();
    let devices: Vec<&[(&str, &str)]> = devices.iter().map(|ids| &ids[..]).collect();
    five_g_bi(key, &devices)
}

pub(super) fn intent(journal: &dyn Journal, demand: &ChangeRequest, now: Timestamp) -> Intent {
    Intent {
        change: demand.to_change(ChangeId::new(now), now),
        fingerprint: journal.fingerprint(&demand.fingerprint_input()),
        devices: demand.devices.clone(),
    }
}

/// Stores a change at a time and dispatches it a second later.
pub(super) async fn dispatched_at(
    journal: &dyn Journal,
    demand: &ChangeRequest,
    seconds: i64,
) -> ChangeId {
    let claim = journal
        .claim(intent(journal, demand, at(seconds)))
        .await
        .unwrap();
    let Claim::Created(change) = claim else {
        panic!("{claim:?}")
    };
    let step = dispatch();
    journal
        .apply_transition(change.change_id, step, at(seconds + 1))
        .await
        .unwrap();
    change.change_id
}

/// Stores a change and accepts it as `request`.
pub(super) async fn accepted(
    journal: &dyn Journal,
    demand: &ChangeRequest,
    request: &str,
) -> ChangeId {
    let id = dispatched_at(journal, demand, 10).await;
    let accept = Transition::Accept {
        request_id: RequestId::parse(request).unwrap(),
        evidence: String::new(),
    };
    journal.apply_transition(id, accept, at(12)).await.unwrap();
    id
}

pub(super) fn success(request: &str, number: usize) -> Callback {
    parse(&format!(
        r#"{{"requestId":"{request}","deviceIds":[{{"id":"{}","kind":"Iccid"}}],"status":"SUCCESS"}}"#,
        iccid(number)
    ))
}

fn received(callback: Callback, seconds: i64) -> ReceivedCallback {
    ReceivedCallback {
        callback,
        account: None,
        service: None,
        receive_time: at(seconds),
        forwarding: None,
    }
}

fn parse(body: &str) -> Callback {
    payload::parse(body.as_bytes()).unwrap()
}

async fn timeline(journal: &dyn Journal, target: WatchTarget) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        // Small pages, so that their seams are tested too.
        let after = events.last().map_or(Cursor::START, |event| event.cursor);
        let page = journal.events(target.clone(), after, 2).await.unwrap();
        let is_end = page.is_end;
        events.extend(page.events);
        if is_end {
            assert!(events.is_sorted_by(|one, other| one.cursor < other.cursor));
            return events;
        }
    }
}

/// A timeline as text: `Queued Dispatched 3:Succeeded …`.
fn format_events(events: &[Event]) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match &event.payload {
            EventPayload::State(change) => format!("{:?}", change.state),
            EventPayload::Result(result) => match &result.device {
                Some((index, _)) => format!("{index}:{:?}", result.report.outcome),
                None => format!("?:{:?}", result.report.outcome),
            },
        })
        .collect();
    words.join(" ")
}

fn not_sent() -> Refusal {
    Refusal {
        kind: RefusalKind::NotSent,
        detail: String::new(),
        thingspace_code: None,
        thingspace_text: None,
        retry_after: None,
    }
}
