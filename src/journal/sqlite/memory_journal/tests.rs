//! The cost of a commit does not depend on how much is stored.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    callbacks::payload,
    operations::testing::{esim, iccid},
};

const DEVICES: usize = 3;

fn request_id(change: usize) -> RequestId {
    RequestId::parse(format!("request-{change}")).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_micros(1_000_000)
}

fn change(number: usize) -> ChangeRequest {
    esim(&format!("key-{number}"), number * DEVICES..(number + 1) * DEVICES)
}

fn callbacks(change: usize) -> Vec<ReceivedCallback> {
    let parse = |device| {
        let body = format!(
            r#"{{"requestId":"request-{change}","deviceIds":[{{"kind":"iccid","id":"{}"}}],"status":"Success"}}"#,
            iccid(change * DEVICES + device)
        );
        ReceivedCallback {
            callback: payload::parse(body.as_bytes()).unwrap(),
            account: None,
            service: None,
            receive_time: now(),
            forwarding: None,
        }
    };
    (0..DEVICES).map(parse).collect()
}

/// Makes a change with an unknown outcome.
fn lose_response(journal: &mut MemoryJournal, change: &ChangeRequest) {
    let change_id = ChangeId::new(now());
    let intent = Intent {
        change: change.to_change(change_id, now()),
        fingerprint: [0; 32],
        devices: Arc::clone(&change.devices),
        dispatch: Some(Dispatch { trace: None }),
    };
    journal.commit([ClaimChange::new(intent)]).unwrap();
    let transition = Transition::MarkOutcomeUnknown;
    journal.commit([ApplyTransition(first_step(change_id, transition, now()))]).unwrap();
}

/// Counts the steps of SQLite's virtual machine. A statement that reads each row of a table takes several for
/// each of them.
fn count_steps(journal: &mut MemoryJournal, action: impl FnOnce(&mut MemoryJournal)) -> usize {
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    journal.db.progress_handler(1, Some(count)).unwrap();
    action(journal);
    journal.db.progress_handler(0, None::<fn() -> bool>).unwrap();
    steps.load(Ordering::Relaxed)
}

/// Returns the steps of a claim with its acceptance, and of a batch of callbacks, beside this number of finished
/// changes and one with an unknown outcome.
fn steps_beside(finished: usize) -> [usize; 2] {
    let mut journal = MemoryJournal::new().unwrap();
    for number in 0..finished {
        journal.accept(&change(number), request_id(number), now()).unwrap();
        journal.store(callbacks(number)).unwrap();
    }
    lose_response(&mut journal, &change(1_000_000));
    // The statements are prepared, and the rows in memory, from here on.
    journal.accept(&change(2_000_000), request_id(2_000_000), now()).unwrap();
    journal.store(callbacks(2_000_000)).unwrap();
    let accept = count_steps(&mut journal, |journal| {
        journal.accept(&change(3_000_000), request_id(3_000_000), now()).unwrap();
    });
    let store = count_steps(&mut journal, |journal| {
        journal.store(callbacks(3_000_000)).unwrap();
    });
    [accept, store]
}

#[test]
fn a_commit_beside_an_unknown_change_takes_as_many_steps_with_200_stored_changes_as_with_10() {
    assert_eq!(steps_beside(10), steps_beside(200));
}
