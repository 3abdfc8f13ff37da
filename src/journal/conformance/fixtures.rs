//! Changes, callbacks and helpers of the checks.

use std::{future::Future, pin::Pin};
pub(super) use std::{sync::Arc, time::Duration};

use crate::{callbacks::payload, operations::testing::five_g_bi};
pub(super) use crate::{
    domain::{
        change::Attempt,
        clock::Timestamp,
        device_states::DeviceCounts,
        evidence::ResultService,
        identifier::ReportedId,
        newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
        refusal::{Refusal, RefusalKind},
        result::{Callback, Match},
        state::{ChangeState, Transition},
    },
    journal::{
        Attribution, BusyDevice, ChangeDevice, ChangeFilter, ChangeSelector, CheckReport, Claim,
        Commit, CommitListener, Cursor, DeviceFilter, DeviceOutcome, Event, EventPayload,
        EventQuery, ForwardOptions, ForwardOutcome, ForwardQueueStats, Intent, Journal,
        JournalError, NewResult, ReceivedCallback, Removal, Removed, Step, Stored, VisibleAccounts,
        WatchTarget,
    },
    operations::{
        ChangeRequest,
        testing::{esim, iccid},
    },
};

/// An implementation under test.
pub(in crate::journal) trait Engine: Sync {
    /// Opens the journal: the same one each time.
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>>;

    /// Checks the journal, which may be open.
    fn check(&self) -> Pin<Box<dyn Future<Output = CheckReport> + Send + '_>>;
}

/// Checks that the rows of the journal fit together.
pub(in crate::journal) async fn assert_sound(engine: &dyn Engine) {
    assert_eq!(engine.check().await.findings, vec![]);
}

pub(super) fn dispatch() -> Transition {
    Transition::Dispatch { trace: None, already_on_plan: None }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub(super) fn five_g(key: &str, meids: &[&str]) -> ChangeRequest {
    five_g_by("meid", key, meids)
}

pub(super) fn five_g_by(kind: &str, key: &str, ids: &[&str]) -> ChangeRequest {
    let devices: Vec<[(&str, &str); 1]> = ids.iter().map(|id| [(kind, *id)]).collect();
    let devices: Vec<&[(&str, &str)]> = devices.iter().map(|ids| &ids[..]).collect();
    five_g_bi(key, &devices)
}

pub(super) fn intent(journal: &dyn Journal, request: &ChangeRequest, now: Timestamp) -> Intent {
    Intent {
        change: request.to_change(ChangeId::new(now), now),
        fingerprint: journal.fingerprint(&request.fingerprint_input()),
        devices: request.devices.clone(),
        dispatch: None,
    }
}

/// A transition of the first attempt to send a change.
pub(super) fn first_step(change_id: ChangeId, transition: Transition, now: Timestamp) -> Step {
    Step { change_id, attempt: Attempt(change_id), transition, now }
}

/// Stores a change at a time and dispatches it a second later.
pub(super) async fn dispatched_at(
    journal: &dyn Journal,
    request: &ChangeRequest,
    seconds: i64,
) -> ChangeId {
    let claim = journal.claim(intent(journal, request, at(seconds))).await.unwrap();
    let Claim::Created(change) = claim else { panic!("{claim:?}") };
    journal.apply_transition(change.change_id, dispatch(), at(seconds + 1)).await.unwrap();
    change.change_id
}

/// Stores a change and accepts it as `request_id`.
pub(super) async fn accepted(
    journal: &dyn Journal,
    request: &ChangeRequest,
    request_id: &str,
) -> ChangeId {
    let id = dispatched_at(journal, request, 10).await;
    let accept = Transition::Accept {
        request_id: RequestId::parse(request_id).unwrap(),
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

pub(super) fn received(callback: Callback, seconds: i64) -> ReceivedCallback {
    ReceivedCallback {
        callback,
        account: None,
        service: None,
        receive_time: at(seconds),
        forwarding: None,
    }
}

pub(super) fn parse(body: &str) -> Callback {
    payload::parse(body.as_bytes()).unwrap()
}

/// Reads all events of a target, in pages of two.
pub(super) async fn timeline(journal: &dyn Journal, target: WatchTarget) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(Cursor::START, |event| event.cursor);
        let query =
            EventQuery { raw_json: true, resolved_device: true, ..EventQuery::new(after, 2) };
        let page = journal.events(target.clone(), query).await.unwrap();
        let is_end = page.is_end;
        events.extend(page.events);
        if is_end {
            assert!(events.is_sorted_by(|one, other| one.cursor < other.cursor));
            return events;
        }
    }
}

/// Formats a timeline: `Queued Dispatched 3:Succeeded …`.
pub(super) fn format_events(events: &[Event]) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match &event.payload {
            EventPayload::State(change) => format!("{:?}", change.state),
            EventPayload::Result(result) => {
                let result = result.to_proto(false, false).unwrap();
                let index = result.device_index.map_or("?".to_owned(), |index| index.to_string());
                format!("{index}:{:?}", result.outcome())
            }
        })
        .collect();
    words.join(" ")
}

pub(super) fn not_sent() -> Refusal {
    Refusal {
        kind: RefusalKind::NotSent,
        detail: String::new(),
        thingspace_code: None,
        thingspace_text: None,
        retry_after: None,
    }
}
