//! Functions whose instructions `scripts/instructions` counts.
//!
//!     instructions FUNCTION
//!
//! Calls one function with fixed inputs, and prints the number of calls. callgrind counts only the instructions
//! within `measured`.

use std::{error::Error, hint::black_box};

use bytes::BytesMut;
use thingspace_gateway::{
    callbacks::payload,
    config::{Config, Sources},
    domain::{clock::Timestamp, newtypes::RequestId},
    grpc::ProtoEncoder,
    journal::{
        Cursor, Epoch, Event, EventPayload, EventQuery, ReceivedCallback, WatchTarget,
        sqlite::memory_journal::MemoryJournal,
    },
    operations::{ChangeRequest, RpcOperation as _, ValidationRules, esim_plan::EsimPlanChange},
    proto,
    watch::{MessageEncoder as _, ResumePoint, ResumeToken, WatchMessage},
};

type Failure = Box<dyn Error + Send + Sync>;

/// Calls of a function with a large input.
const CALLS: usize = 4;
/// Calls of a function that takes only a few microseconds. The allocator's state makes a larger difference there.
const SMALL_CALLS: usize = 64;
/// Calls before the first one that is counted.
const WARM_UP: usize = 2;
/// Callbacks of a batch.
const BATCH: usize = 256;
/// Devices of the largest change.
const MAX_DEVICES: usize = 10_000;
const REQUEST: &str = "2f3b8a2e-8f4e-4a51-bd0b-6a3a2f6f0b51";
const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "callback_parse" => {
            let body = callback_body(1);
            repeat(
                SMALL_CALLS,
                || Ok(body.as_bytes()),
                |body| payload::parse(body).ok_or("not a callback"),
            )
        }
        "apply_256" => {
            let mut journal = journal(BATCH)?;
            let callbacks = callbacks(0..BATCH)?;
            repeat(CALLS, || journal.load(callbacks.clone()), |batch| batch.apply())
        }
        "unit_of_work_256" => {
            let mut journal = journal((WARM_UP + CALLS) * BATCH)?;
            let mut first = (0..).step_by(BATCH);
            let next = || callbacks(first.by_ref().take(1).flat_map(|first| first..first + BATCH));
            repeat(CALLS, next, |callbacks| journal.store(callbacks))
        }
        "event_encode" => {
            let event = result_event()?;
            let token = token(&event)?;
            let input = || Ok(BytesMut::with_capacity(4_096));
            repeat(SMALL_CALLS, input, |mut out| {
                let message = WatchMessage::Event { event: &event, include_raw: false };
                ProtoEncoder.encode(&token, message, &mut out);
                Ok::<_, Failure>(out)
            })
        }
        "validate_10k" => repeat(CALLS, || Ok(esim_message(MAX_DEVICES)), validate),
        "fingerprint_10k" => {
            let request = validate(esim_message(MAX_DEVICES))?;
            repeat(CALLS, || Ok(&request), |request| Ok::<_, Failure>(request.fingerprint_input()))
        }
        "body_10k" => {
            let request = validate(esim_message(MAX_DEVICES))?;
            let settings = Config::load(&Sources::default())?.config.thingspace;
            repeat(
                CALLS,
                || Ok(&request),
                |request| request.operation.outbound_request(request, &settings),
            )
        }
        "token_parse" => {
            let text = token(&result_event()?)?.encode();
            repeat(SMALL_CALLS, || Ok(text.as_str()), ResumeToken::decode)
        }
        name => Err(format!("unknown function: {name}").into()),
    }
}

/// Calls a function, each time with a new input. Prints the number of calls that count.
#[allow(clippy::print_stdout, reason = "scripts/instructions reads the output")]
fn repeat<I, O, E: Into<Failure>>(
    calls: usize,
    mut input: impl FnMut() -> Result<I, Failure>,
    mut function: impl FnMut(I) -> Result<O, E>,
) -> Result<(), Failure> {
    for _ in 0..WARM_UP {
        let output = function(black_box(input()?));
        black_box(output.map_err(Into::into)?);
    }
    for _ in 0..calls {
        let input = black_box(input()?);
        // The output is dropped outside.
        let output = measured(&mut function, input);
        black_box(output.map_err(Into::into)?);
    }
    println!("{calls}");
    Ok(())
}

/// callgrind counts between the call and the return of this function.
#[inline(never)]
fn measured<I, O>(function: &mut impl FnMut(I) -> O, input: I) -> O {
    function(input)
}

/// Returns a journal with one accepted change.
fn journal(devices: usize) -> Result<MemoryJournal, Failure> {
    let mut journal = MemoryJournal::new()?;
    let request = validate(esim_message(devices))?;
    journal.accept(&request, request_id()?, NOW)?;
    Ok(journal)
}

/// Returns a stored result.
fn result_event() -> Result<Event, Failure> {
    let mut journal = journal(1)?;
    journal.store(callbacks(0..1)?)?;
    let page = journal
        .events(&WatchTarget::Request(request_id()?), EventQuery::new(Cursor::START, 100))?;
    let is_result = |event: &Event| matches!(event.payload, EventPayload::Result(_));
    page.events.into_iter().find(is_result).ok_or_else(|| "no result".into())
}

fn request_id() -> Result<RequestId, Failure> {
    RequestId::parse(REQUEST).map_err(|_| "not a request id".into())
}

fn token(event: &Event) -> Result<ResumeToken, Failure> {
    Ok(ResumeToken {
        epoch: Epoch(0x0123_4567_89ab_cdef),
        cursor: event.cursor,
        event_hash: 0x1234_5678,
        resume_point: ResumePoint::AfterEvent,
        target: WatchTarget::Request(request_id()?),
        removals: 0,
    })
}

fn callbacks(numbers: impl IntoIterator<Item = usize>) -> Result<Vec<ReceivedCallback>, Failure> {
    let parse = |number| -> Result<ReceivedCallback, Failure> {
        let callback = payload::parse(callback_body(number).as_bytes()).ok_or("not a callback")?;
        let receive_time = NOW;
        Ok(ReceivedCallback {
            callback,
            account: None,
            service: None,
            receive_time,
            forwarding: None,
        })
    };
    numbers.into_iter().map(parse).collect()
}

/// A callback like ThingSpace's example.
fn callback_body(number: usize) -> String {
    let ids = format!(
        r#"[{{"id":"{}","kind":"Eid"}},{{"id":"99000000{number:07}","kind":"Imei"}},{{"id":"1512{number:07}","kind":"msisdn"}},{{"id":"{}","kind":"Iccid"}}]"#,
        eid(number),
        iccid(number)
    );
    format!(
        r#"{{"username":"bench-user","password":"bench-password","requestId":"{REQUEST}","deviceIds":{ids},"deviceResponse":{{"deviceProfileResponse":{{"deviceIdentifierCollection":{ids},"state":"ACTIVE","profileStatus":"ENABLE","profileRole":"LOCAL"}}}},"status":"SUCCESS","callbackCount":1,"maxCallbackThreshold":4}}"#
    )
}

fn esim_message(devices: usize) -> proto::ChangeEsimPlanRequest {
    let devices = (0..devices).map(|number| proto::EsimDevice {
        eid: eid(number),
        iccid: iccid(number),
        client_reference: format!("row-{number}"),
    });
    proto::ChangeEsimPlanRequest {
        account_name: "0000123456-00001".into(),
        idempotency_key: "2026-11-27 plan change".into(),
        service_plan: "service plan name".into(),
        devices: devices.collect(),
        ..Default::default()
    }
}

fn eid(number: usize) -> String {
    format!("8904903200000100000000{number:010}")
}

fn iccid(number: usize) -> String {
    format!("8914800000{number:010}")
}

fn validate(message: proto::ChangeEsimPlanRequest) -> Result<ChangeRequest, Failure> {
    let rules = ValidationRules {
        max_devices_per_request: MAX_DEVICES,
        require_key: true,
        reject_reserved: true,
    };
    EsimPlanChange::validate(message, rules).map_err(|_| "not a valid request".into())
}
