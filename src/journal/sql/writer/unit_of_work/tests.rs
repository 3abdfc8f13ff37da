use proptest::prelude::*;
use rusqlite::{Connection, types::Value};

use super::*;
use crate::{
    callbacks::payload,
    domain::{
        change::Attempt,
        clock::Timestamp,
        newtypes::{ChangeId, RequestId},
        refusal::Refusal,
        state::Transition,
    },
    journal::{
        self, Dispatch, Intent, ReceivedCallback,
        apply::{
            ApplyTransition, AttributeRequest, ClaimChange, ResolveUnmatched, SettleChange,
            StoreCallback, StoreCallbacks,
        },
        sql::writer::{CommandKind, ReplyReceiver},
        sqlite::{journal::SqliteTransaction, schema},
    },
    operations::{
        ChangeRequest,
        testing::{esim, five_g_bi, iccid},
    },
};

const CHANGES: usize = 6;
const REQUESTS: usize = 3;
const DEVICES: usize = 4;
const STEPS_OF_FIRST_OWNER: usize = 8;

/// A command of the generated sequence. Numbers name changes, requests and devices.
#[derive(Debug, Clone)]
enum Step {
    Claim { change: usize, is_dispatched: bool },
    Transition { change: usize, attempt: Option<usize>, transition: usize, request: usize },
    Settle { change: usize },
    Callback { request: usize, device: usize, status: usize, has_mdn: bool },
    Attribute { change: usize, request: usize, last_result: u64 },
    Resolve { change: usize, first_result: u64, device: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (change, request, device) = (0..CHANGES, 0..REQUESTS, 0..DEVICES);
    prop_oneof![
        2 => (change.clone(), any::<bool>())
            .prop_map(|(change, is_dispatched)| Step::Claim { change, is_dispatched }),
        3 => (change.clone(), any_attempt(), 0..8_usize, request.clone()).prop_map(
            |(change, attempt, transition, request)| {
                Step::Transition { change, attempt, transition, request }
            }
        ),
        1 => change.clone().prop_map(|change| Step::Settle { change }),
        5 => (request.clone(), device.clone(), 0..3_usize, any::<bool>()).prop_map(
            |(request, device, status, has_mdn)| Step::Callback { request, device, status, has_mdn }
        ),
        1 => (change.clone(), request, 1..20_u64).prop_map(
            |(change, request, last_result)| Step::Attribute { change, request, last_result }
        ),
        1 => (change, 1..20_u64, device).prop_map(
            |(change, first_result, device)| Step::Resolve { change, first_result, device }
        ),
    ]
}

/// The attempt of a transition: that of another claim, or the first one.
fn any_attempt() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![2 => Just(None), 1 => (0..CHANGES).prop_map(Some)]
}

/// The changes that the steps name: two share a key, and all of them share devices.
fn intents() -> Vec<Intent> {
    let meid = |number: usize| format!("A100003685E5{number:02}");
    let five_g = |key: &str, devices: &[usize]| -> ChangeRequest {
        let ids: Vec<String> = devices.iter().map(|number| meid(*number)).collect();
        let ids: Vec<[(&str, &str); 1]> = ids.iter().map(|id| [("meid", id.as_str())]).collect();
        let ids: Vec<&[(&str, &str)]> = ids.iter().map(|ids| &ids[..]).collect();
        five_g_bi(key, &ids)
    };
    let requests = [
        esim("a", 0..2),
        esim("a", 0..2),
        esim("b", 1..4),
        five_g("c", &[0, 1]),
        five_g("d", &[0, 1, 2]),
        // Several blocks, so that only the devices in question are loaded.
        esim("e", 2..40),
    ];
    let intent = |(number, request): (usize, ChangeRequest)| {
        let now = at(number as i64);
        Intent {
            change: request.to_change(ChangeId::new(now), now),
            fingerprint: [u8::try_from(number / 2).unwrap(); 32],
            devices: request.devices.to_vec().into(),
            dispatch: None,
        }
    };
    requests.into_iter().enumerate().map(intent).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn request_id(number: usize) -> RequestId {
    RequestId::parse(format!("request-{number}")).unwrap()
}

fn mdn(device: usize) -> String {
    format!("555555000{device}")
}

/// A command, and a function that returns its reply as text.
type Prepared = (Command, Box<dyn FnOnce() -> String>);

fn prepare<T: std::fmt::Debug + 'static>(
    (command, mut reply): (Command, ReplyReceiver<T>),
) -> Prepared {
    (command, Box::new(move || format!("{:?}", reply.try_recv().unwrap())))
}

fn command(step: &Step, number: usize, intents: &[Intent]) -> Prepared {
    let now = at(100 + number as i64);
    let change_id = |change: usize| intents[change].change.change_id;
    match step.clone() {
        Step::Claim { change, is_dispatched } => {
            let mut intent = intents[change].clone();
            intent.dispatch = is_dispatched.then_some(Dispatch { trace: None });
            prepare(Command::new(CommandKind::Other, 1, ClaimChange::new(intent)))
        }
        Step::Settle { change } => {
            let settle = SettleChange { change_id: change_id(change), now };
            prepare(Command::new(CommandKind::Other, 1, settle))
        }
        Step::Transition { change, attempt, transition, request } => {
            let transition = match transition {
                0 => Transition::Dispatch { trace: None, already_on_plan: Some(vec![1]) },
                1 | 2 => {
                    let evidence = String::new();
                    Transition::Accept { request_id: request_id(request), evidence }
                }
                3 => Transition::MarkNotSent(Refusal::not_sent("test")),
                4 => Transition::MarkOutcomeUnknown,
                5 => Transition::MarkOverdue,
                6 => Transition::Close,
                _ => Transition::Rearm,
            };
            let change_id = change_id(change);
            let attempt = Attempt(intents[attempt.unwrap_or(change)].change.change_id);
            let step = journal::Step { change_id, attempt, transition, now };
            prepare(Command::transition(ApplyTransition(step)))
        }
        Step::Callback { request, device, status, has_mdn } => {
            let status = ["Success", "Failed", "Pending"][status];
            let id = if has_mdn {
                format!(r#"{{"kind":"mdn","id":"{}"}}"#, mdn(device))
            } else {
                format!(
                    r#"{{"kind":"iccid","id":"{}"}},{{"kind":"meid","id":"A100003685E5{device:02}"}}"#,
                    iccid(device)
                )
            };
            let id_of_request = request_id(request);
            let body = format!(
                r#"{{"requestId":"{id_of_request}","deviceIds":[{id}],"status":"{status}"}}"#
            );
            let callback = ReceivedCallback {
                callback: payload::parse(body.as_bytes()).unwrap(),
                account: None,
                service: None,
                // Repeated deliveries are equal.
                receive_time: at(50),
                forwarding: None,
            };
            if number.is_multiple_of(3) {
                let callbacks = StoreCallbacks::new(vec![callback.clone(), callback]);
                prepare(Command::new(CommandKind::Other, 2, callbacks))
            } else {
                prepare(Command::new(CommandKind::Callback, 1, StoreCallback::new(callback)))
            }
        }
        Step::Attribute { change, request, last_result } => {
            let attribute = AttributeRequest {
                request_id: request_id(request),
                change_id: change_id(change),
                last_result,
                evidence: "test".into(),
                now,
            };
            prepare(Command::new(CommandKind::Other, 1, attribute))
        }
        Step::Resolve { change, first_result, device } => {
            let listed = payload::parse(
                format!(
                    r#"{{"requestId":"r","deviceIds":[{{"kind":"mdn","id":"{}"}},
                    {{"kind":"meid","id":"A100003685E5{device:02}"}}]}}"#,
                    mdn(device)
                )
                .as_bytes(),
            );
            let listed = listed.unwrap().result.device_ids;
            let resolve = ResolveUnmatched {
                change_id: change_id(change),
                first_result,
                reported: listed[..1].to_vec(),
                listed,
                now,
            };
            prepare(Command::new(CommandKind::Other, 1, resolve))
        }
    }
}

/// Commits the steps in batches of these sizes; one by one, and without a cache, if there are none. Returns
/// the replies, and all rows of all tables.
fn run_in_batches(
    steps: &[Step],
    intents: &[Intent],
    sizes: impl IntoIterator<Item = usize>,
) -> (Vec<String>, Vec<String>) {
    let mut db = Connection::open_in_memory().unwrap();
    schema::initialize(&mut db).unwrap();
    let mut cache = DeviceCache::default();
    let mut start = Start { last_position: 0, counts: Counts::default() };
    let mut replies = Vec::new();
    let mut sizes = sizes.into_iter().peekable();
    let has_cache = sizes.peek().is_some();
    let mut next = 0;
    while next < steps.len() {
        // Another process continues after some steps: what the one before has in flight can be settled.
        let end = if next < STEPS_OF_FIRST_OWNER { STEPS_OF_FIRST_OWNER } else { steps.len() };
        let end = end.min(steps.len());
        let size = sizes.next().unwrap_or(1).clamp(1, end - next);
        let prepared = (next..next + size).map(|number| command(&steps[number], number, intents));
        let (mut commands, waiting): (Vec<_>, Vec<_>) = prepared.unzip();
        let transaction = db.transaction().unwrap();
        let owner = if next < STEPS_OF_FIRST_OWNER { 1 } else { 2 };
        let work = SqliteTransaction { connection: &transaction, owner, start };
        let set = run(&work, &mut commands, &mut cache).unwrap();
        transaction.commit().unwrap();
        if has_cache {
            cache.keep(&set);
        } else {
            cache = DeviceCache::default();
        }
        start = Start { last_position: set.last_position, counts: set.counts };
        for (command, reply) in commands.into_iter().zip(waiting) {
            command.action.reply(Ok(()));
            replies.push(reply());
        }
        next += size;
    }
    replies.push(format!("{:?}", start.counts));
    (replies, dump(&db))
}

fn dump(db: &Connection) -> Vec<String> {
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut tables = db.prepare(tables).unwrap();
    let names: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut rows = Vec::new();
    for name in names {
        let mut statement = db.prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let found = statement.query_map([], |row| {
            let values = (0..columns).map(|column| row.get::<_, Value>(column));
            Ok(format!("{name}: {:?}", values.collect::<rusqlite::Result<Vec<_>>>()?))
        });
        rows.extend(found.unwrap().map(Result::unwrap));
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_of_any_size_has_the_effect_of_its_commands_one_by_one(
        steps in prop::collection::vec(any_step(), 1..40),
        sizes in prop::collection::vec(1..20_usize, 0..20),
    ) {
        let intents = intents();
        let expected = run_in_batches(&steps, &intents, []);
        let one_by_one = run_in_batches(&steps, &intents, [1]);
        prop_assert_eq!(&one_by_one, &expected);
        let found = run_in_batches(&steps, &intents, sizes);
        prop_assert_eq!(&found.0, &expected.0);
        prop_assert_eq!(&found.1, &expected.1);
        let at_once = run_in_batches(&steps, &intents, [512]);
        prop_assert_eq!(&at_once.0, &expected.0);
        prop_assert_eq!(&at_once.1, &expected.1);
    }
}
