use super::*;
use crate::{
    audit::{
        call::CallEnd,
        record::AuditEvent,
        testing::{FakeOutput, NoonClock, options, record, start},
    },
    telemetry::Telemetry,
};

const OK: CallEnd = CallEnd { code: "OK", reason: None, executed: Some("YES") };

/// Begins a call and waits until its begin is recorded.
async fn begin(log: &AuditLog, target: &str) -> Result<AuditedCall, AuditUnavailable> {
    let (call, recorded) = log.begin(record(AuditEvent::CallStarted, target)).await?;
    recorded.await?;
    Ok(call)
}

/// A record of a new stream of a caller.
fn stream(target: &str) -> AuditRecord {
    AuditRecord { caller: Some("fleet".into()), ..record(AuditEvent::StreamOpened, target) }
}

/// A record of a read of a caller.
fn read(caller: &str) -> AuditRecord {
    AuditRecord { caller: Some(caller.into()), code: Some("OK"), ..record(AuditEvent::Call, "x") }
}

/// Waits until the log has this availability.
async fn until_available(log: &AuditLog, is_available: bool) {
    let wait = async {
        while log.is_available() != is_available {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// Waits until this number of records wait to be written.
async fn until_queued(log: &AuditLog, count: u64) {
    let wait = async {
        while log.gauges().queued != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.unwrap();
}

#[tokio::test]
async fn a_change_has_a_record_before_it_begins_and_one_after_it_has_ended() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    let call = begin(&log, "a").await.unwrap();
    assert_eq!(output.values("event"), ["log_started", "call_started"]);
    call.end(OK).await.unwrap();
    log.close().await;
    assert_eq!(output.values("event"), ["log_started", "call_started", "call", "log_stopped"]);
    assert_eq!(output.values("target"), ["a", "a"]);
    let ids = output.values("call_id");
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        (output.values("code"), output.values("executed")),
        (vec!["OK".to_owned()], vec!["YES".to_owned()])
    );
}

#[tokio::test]
async fn a_dropped_call_is_recorded_as_cancelled_and_a_stream_as_ended() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    drop(begin(&log, "a").await.unwrap());
    drop(log.open_stream(stream("b")));
    log.close().await;
    let events =
        ["log_started", "call_started", "call", "stream_opened", "stream_ended", "log_stopped"];
    assert_eq!(output.values("event"), events);
    assert_eq!(output.values("code"), ["CANCELLED", "CANCELLED"]);
    assert_eq!(output.values("executed"), ["UNKNOWN"]);
}

#[tokio::test]
async fn concurrent_synced_records_share_a_sync() {
    let output = FakeOutput::default();
    let log = start(&output, 100);
    let held = output.hold();
    let records: Vec<_> = (0..100)
        .map(|number| log.record_synced(record(AuditEvent::Call, &number.to_string())))
        .collect();
    drop(held);
    for recorded in records {
        recorded.await.unwrap();
    }
    assert!(output.syncs() <= 3, "{}", output.syncs());
    let targets: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(output.values("target"), targets);
}

#[tokio::test]
async fn a_dropped_future_does_not_cancel_its_record() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    drop(log.record(record(AuditEvent::Call, "dropped")));
    log.close().await;
    assert_eq!(output.values("target"), ["dropped"]);
}

#[tokio::test]
async fn on_a_full_disk_changes_are_refused_reads_go_on_and_all_records_are_written_later_once() {
    let output = FakeOutput::default();
    let log = start(&output, 100);
    let call = begin(&log, "in progress").await.unwrap();
    // The next write ends within its line.
    output.set_space(Some(30));
    assert_eq!(log.record(record(AuditEvent::Call, "torn")).await, Err(RecordError::Delayed));
    assert!(!log.is_available());
    assert_eq!(begin(&log, "refused").await.err(), Some(AuditUnavailable));
    assert_eq!(call.end(OK).await, Err(RecordError::Delayed));
    for number in 0..20 {
        let delayed = log.record(record(AuditEvent::Call, &number.to_string())).await;
        assert_eq!(delayed, Err(RecordError::Delayed));
    }
    assert_eq!(log.gauges(), AuditGauges { queued: 22, is_failing: true });

    output.set_space(None);
    until_available(&log, true).await;
    log.close().await;
    let mut targets = vec!["in progress".to_owned(), "torn".into(), "in progress".into()];
    targets.extend((0..20).map(|number| number.to_string()));
    assert_eq!(output.values("target"), targets);
    assert_eq!(output.values("event").iter().filter(|event| *event == "line_repaired").count(), 1);
    assert_eq!(log.gauges().queued, 0);
}

#[tokio::test]
async fn a_full_queue_loses_reads_but_never_the_end_of_a_call_and_the_log_reports_how_many() {
    let output = FakeOutput::default();
    let telemetry = Telemetry::metrics_only().unwrap();
    let clock = Arc::new(NoonClock);
    let log = AuditLog::start(&options(5), output.clone(), clock, telemetry.instruments()).unwrap();
    let call = begin(&log, "call").await.unwrap();
    let stream = log.open_stream(stream("stream"));
    log.record(record(AuditEvent::Call, "before")).await.unwrap();
    output.set_space(Some(0));
    let mut results = Vec::new();
    for number in 0..8 {
        results.push(log.record(record(AuditEvent::Call, &number.to_string())).await);
    }
    assert_eq!(results[..3], [Err(RecordError::Delayed); 3]);
    assert_eq!(results[3..], [Err(RecordError::Lost); 5]);
    drop((call, stream));
    output.set_space(None);
    until_available(&log, true).await;
    log.close().await;
    assert_eq!(output.values("count"), ["5"]);
    let targets = ["call", "stream", "before", "0", "1", "2", "call", "stream"];
    assert_eq!(output.values("target"), targets);
    let counted = |outcome| {
        let metric = "thingspace_gateway_audit_records_total{thingspace_gateway_outcome=";
        telemetry.sample(&format!("{metric}\"{outcome}\"}}"))
    };
    assert_eq!((counted("written"), counted("lost")), (8, 5));
}

#[tokio::test]
async fn after_a_failed_sync_the_lines_are_written_again_under_the_same_ids() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    log.record_synced(record(AuditEvent::Call, "before")).await.unwrap();
    output.fail_syncs(true);
    let failed = log.record_synced(record(AuditEvent::Call, "after")).await;
    assert_eq!(failed, Err(RecordError::Delayed));
    output.fail_syncs(false);
    until_available(&log, true).await;
    log.close().await;
    let text = output.text();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ids: Vec<_> = records
        .filter(|record| record["target"] == "after")
        .map(|record| record["id"].clone())
        .collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn a_failed_sync_of_reads_makes_the_log_unavailable_until_one_succeeds() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    output.fail_syncs(true);
    let _written_or_delayed = log.record(record(AuditEvent::Call, "read")).await;
    until_available(&log, false).await;
    output.fail_syncs(false);
    until_available(&log, true).await;
}

#[tokio::test]
async fn reads_that_never_pause_are_synced_within_a_second() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    log.record_synced(record(AuditEvent::Call, "first")).await.unwrap();
    let before = output.syncs();
    let reads = async {
        while output.syncs() < before + 2 {
            log.record(record(AuditEvent::Call, "read")).await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), reads).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn aggregated_refusals_are_written_after_ten_seconds_and_at_the_end() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    let running = tokio::spawn({
        let log = log.clone();
        async move { log.run().await }
    });
    let refusal = AuditRecord { code: Some("UNAUTHENTICATED"), ..record(AuditEvent::Call, "x") };
    for _ in 0..100 {
        log.record_refusal(&refusal);
    }
    tokio::time::sleep(COUNT_PERIOD + Duration::from_millis(1)).await;
    log.record_refusal(&refusal);
    running.abort();
    log.close().await;
    assert_eq!(output.values("count"), ["100", "1"]);
    assert_eq!(output.values("target"), [""; 0]);
}

#[tokio::test]
async fn a_flood_of_reads_and_streams_of_a_caller_has_few_records_and_none_is_missing() {
    let output = FakeOutput::default();
    let log = start(&output, 1_000);
    for _ in 0..5_000 {
        log.record_call(&read("fleet"));
        drop(log.open_stream(stream("x")));
    }
    log.record_call(&read("other"));
    log.close().await;
    let events = output.values("event");
    let count = |event: &str| events.iter().filter(|found| *found == event).count();
    assert_eq!(
        (count("call"), count("stream_opened"), count("stream_ended")),
        (11, 10, 10),
        "ten for each caller"
    );
    assert_eq!((count("calls"), count("streams_opened"), count("streams_ended")), (1, 1, 1));
    assert_eq!(output.values("count"), ["4990"; 3]);
}

#[tokio::test]
async fn a_stream_without_a_place_in_the_queue_is_counted() {
    let output = FakeOutput::default();
    let log = start(&output, 3);
    let held = output.hold();
    // One place for this record, and one that is left.
    let waiting = log.record(record(AuditEvent::Call, "waiting"));
    let first = log.open_stream(stream("first"));
    let second = log.open_stream(stream("second"));
    drop((first, second));
    drop(held);
    waiting.await.unwrap();
    until_queued(&log, 0).await;
    log.close().await;
    let events = output.values("event");
    let mut counted = events[4..6].to_vec();
    counted.sort_unstable();
    let expected = ["log_started", "call", "stream_opened", "stream_ended"];
    assert_eq!(events[..4], expected);
    assert_eq!(counted, ["streams_ended", "streams_opened"]);
    assert_eq!(output.values("count"), ["1", "1"]);
}

#[tokio::test]
async fn a_closed_log_refuses_changes_and_loses_records() {
    let output = FakeOutput::default();
    let log = start(&output, 10);
    log.close().await;
    assert_eq!(begin(&log, "a").await.err(), Some(AuditUnavailable));
    assert_eq!(log.record(record(AuditEvent::Call, "b")).await, Err(RecordError::Lost));
    log.close().await;
}

#[tokio::test]
async fn without_a_destination_every_record_is_discarded() {
    let log = AuditLog::default();
    assert!(log.is_available());
    let call = begin(&log, "a").await.unwrap();
    call.end(OK).await.unwrap();
    log.record_synced(record(AuditEvent::Call, "b")).await.unwrap();
    log.record_refusal(&record(AuditEvent::Call, "c"));
    log.close().await;
}

#[test]
fn the_queue_has_a_place_for_every_call_of_the_limits() {
    let config = crate::config::Config::load(&crate::config::Sources::default()).unwrap().config;
    assert_eq!(queue_slots(&config.limits), 4_096 + 2 * 2_000 + 5_000 + 1_000);
}
