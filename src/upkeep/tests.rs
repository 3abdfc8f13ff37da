use tokio::time::Instant;

use super::*;
use crate::{
    domain::{
        change::{ChangeState, Demand, Step},
        clock::Timestamp,
        draft::{Draft, Limits},
        esim::{EsimDeviceDraft, EsimPlanDraft},
        names::{ChangeId, RequestId},
    },
    journal::{
        ChangeName, Claim, Intent,
        embedded::{Embedded, Options},
    },
    telemetry::Instruments,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// So many reads that the journal's threads have had their turn by then, on any machine.
const READS: usize = 1_000_000;

/// A clock that goes with tokio's, which is paused.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000).plus(self.0.elapsed())
    }
}

fn demand() -> Demand {
    let draft = EsimPlanDraft {
        common: Draft {
            account_name: "0000123456-00001".into(),
            service_plan: "plan".into(),
            idempotency_key: "key".into(),
            client_reference: String::new(),
        },
        devices: vec![EsimDeviceDraft {
            eid: "89049032000001000000000000000001".into(),
            iccid: "89148000000800139708".into(),
            client_reference: String::new(),
        }],
    };
    let limits = Limits {
        max_devices: 10,
        require_key: true,
        refuse_reserved: false,
    };
    draft.validate(limits).unwrap()
}

async fn accepted(journal: &dyn Journal, clock: &dyn Clock) -> ChangeId {
    let (demand, now) = (demand(), clock.now());
    let intent = Intent {
        change: demand.begin(ChangeId::new(now), now),
        content: [0; 32],
        devices: demand.devices.clone(),
    };
    let Claim::Made(change) = journal.claim(intent).await.unwrap() else {
        panic!("the key is new")
    };
    let dispatch = Step::Dispatch {
        trace: None,
        on_plan: None,
    };
    let accept = Step::Accept {
        request_id: RequestId::parse("r").unwrap(),
        evidence: String::new(),
    };
    for step in [dispatch, accept] {
        journal
            .step(change.change_id, step, clock.now())
            .await
            .unwrap();
    }
    change.change_id
}

#[tokio::test(start_paused = true)]
async fn a_change_is_overdue_then_given_up_and_gone_when_its_retention_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        dir: directory.path().to_owned(),
        allow_network_filesystem: false,
        instruments: Instruments::unread(),
    };
    let journal: Arc<dyn Journal> = Arc::new(Embedded::open(&options).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(Paused(Instant::now()));
    let stop = CancellationToken::new();
    let deadlines = watch_deadlines(
        Arc::clone(&journal),
        Arc::clone(&clock),
        Deadlines {
            overdue_after: DAY,
            close_after: 7 * DAY,
        },
        stop.clone(),
    );
    let trimming = trim_journal(
        Arc::clone(&journal),
        Arc::clone(&clock),
        400 * DAY,
        stop.clone(),
    );
    let upkeep = tokio::spawn(async { tokio::join!(deadlines, trimming) });

    let change_id = accepted(&*journal, &*clock).await;
    let change = journal.change(ChangeName::Id(change_id)).await.unwrap();
    let accepted_at = change.unwrap().accept_time.unwrap();
    let state = async || {
        let change = journal.change(ChangeName::Id(change_id)).await.unwrap();
        change.map(|change| change.state)
    };
    // The journal works in real time: once the hour is past, its threads are waited for.
    let leaves = async |from: ChangeState, step: Duration, by: Duration| {
        for _ in 0..READS {
            if state().await != Some(from) {
                return;
            }
            if clock.now().since(accepted_at) < by {
                tokio::time::advance(step).await;
            }
        }
        panic!("still {from:?} after {by:?}");
    };
    leaves(ChangeState::Accepted, MINUTE, 2 * DAY).await;
    assert_eq!(state().await, Some(ChangeState::Overdue));
    assert!(clock.now().since(accepted_at) >= DAY);

    leaves(ChangeState::Overdue, 10 * MINUTE, 8 * DAY).await;
    assert_eq!(state().await, Some(ChangeState::Closed));
    assert!(clock.now().since(accepted_at) >= 7 * DAY);

    tokio::time::advance(399 * DAY).await;
    assert_eq!(state().await, Some(ChangeState::Closed));
    leaves(ChangeState::Closed, 10 * MINUTE, 409 * DAY).await;
    assert_eq!(state().await, None);
    stop.cancel();
    upkeep.await.unwrap();
}
