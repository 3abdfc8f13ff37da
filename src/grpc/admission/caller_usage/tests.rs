use futures_util::{FutureExt as _, future::join_all};
use tokio::time::advance;
use tonic_types::StatusExt;

use super::*;
use crate::access::policy::Policy;

fn callers(limits: &[(&str, &str)]) -> Vec<Arc<CallerPolicy>> {
    let text: String = limits
        .iter()
        .map(|(name, limits)| {
            format!(
                "[[caller]]\nname = \"{name}\"\nidentities = [\"jwt:{name}\"]\n[caller.limits]\n{limits}\n"
            )
        })
        .collect();
    Policy::parse(&text).unwrap().callers().to_vec()
}

fn usages(limits: &[(&str, &str)]) -> (CallerUsages, Vec<Arc<CallerUsage>>) {
    let (usages, callers) = (CallerUsages::default(), callers(limits));
    usages.set_callers(&callers);
    let all = callers.iter().map(|caller| usages.usage(caller)).collect();
    (usages, all)
}

/// The limit that an error names, and its delay.
fn refusal(error: ApiError) -> (String, Duration) {
    let status = error.into_status();
    let quota = status.get_details_quota_failure().unwrap();
    let violation = &quota.violations[0];
    assert_eq!(
        (status.code(), violation.subject.as_str()),
        (tonic::Code::ResourceExhausted, "caller")
    );
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.metadata["executed"].as_str()),
        ("THROTTLED", "UNKNOWN")
    );
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    (violation.quota_metric.clone(), delay)
}

#[tokio::test(start_paused = true)]
async fn calls_and_streams_are_counted_for_each_caller() {
    let (_usages, callers) = usages(&[("a", "streams = 1\ninflight_calls = 2"), ("b", "")]);
    let (a, b) = (&callers[0], &callers[1]);
    let calls = [a.begin(false).unwrap(), a.begin(false).unwrap()];
    let stream = a.begin(true).unwrap();
    assert_eq!(
        refusal(a.begin(false).unwrap_err()),
        ("inflight_calls".into(), Duration::from_secs(1))
    );
    assert_eq!(refusal(a.begin(true).unwrap_err()).0, "streams");
    assert!((0..1_000).map(|_| b.begin(true)).collect::<Vec<_>>().iter().all(Result::is_ok));
    drop((calls, stream));
    assert!(a.begin(false).is_ok() && a.begin(true).is_ok());
}

#[tokio::test(start_paused = true)]
async fn change_calls_have_a_rate_and_the_true_delay() {
    let (_usages, callers) = usages(&[("a", "changes_per_minute = 20"), ("b", "")]);
    let (a, b) = (&callers[0], &callers[1]);
    assert!(a.take_change().is_ok() && a.take_change().is_ok());
    let (limit, delay) = refusal(a.take_change().unwrap_err());
    assert_eq!((limit.as_str(), delay), ("changes_per_minute", Duration::from_secs(3)));
    assert!((0..1_000).all(|_| b.take_change().is_ok()));
    advance(delay).await;
    assert!(a.take_change().is_ok() && a.take_change().is_err());
}

#[tokio::test(start_paused = true)]
async fn devices_have_a_rate_and_a_refused_call_does_not_count() {
    let limits = "changes_per_minute = 10\ndevices_per_minute = 600";
    let (_usages, callers) = usages(&[("a", limits)]);
    let a = &callers[0];
    a.take_change().unwrap();
    a.take_devices(|| 50).unwrap();
    advance(Duration::from_secs(6)).await;
    a.take_change().unwrap();
    a.take_devices(|| 55).unwrap();
    // Five of sixty are left, and the call waits for a sixth.
    advance(Duration::from_secs(6)).await;
    a.take_devices(|| 60).unwrap();
    assert_eq!(
        refusal(a.take_change().unwrap_err()),
        ("devices_per_minute".into(), Duration::from_millis(100))
    );
    advance(Duration::from_millis(100)).await;
    a.take_change().unwrap();
    assert_eq!(
        refusal(a.take_devices(|| 10_000).unwrap_err()),
        ("devices_per_minute".into(), Duration::from_millis(5_900))
    );
    // The change call was given back.
    a.take_change().unwrap();
    advance(Duration::from_secs(6)).await;
    a.take_devices(|| 10_000).unwrap();
}

#[tokio::test(start_paused = true)]
async fn devices_are_counted_only_if_they_are_limited() {
    let (_usages, callers) = usages(&[("a", "")]);
    callers[0].take_devices(|| panic!("counted")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_keeps_the_usage_of_its_callers_and_forgets_the_others() {
    let (usages, all) = usages(&[("a", "inflight_calls = 1\nchanges_per_minute = 10"), ("b", "")]);
    let names = |usages: &CallerUsages| {
        let mut names: Vec<String> =
            usages.gauges().iter().map(|it| it.caller.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&usages), ["a", "b"]);
    let (held, streamed) = (all[0].begin(false).unwrap(), all[1].begin(true).unwrap());
    all[0].take_change().unwrap();

    let changed = callers(&[("a", "inflight_calls = 2\nchanges_per_minute = 20"), ("c", "")]);
    usages.set_callers(&changed);
    // The stream of b is still open.
    assert_eq!(names(&usages), ["a", "b", "c"]);
    let a = usages.usage(&changed[0]);
    let second = a.begin(false).unwrap();
    assert!(a.begin(false).is_err());
    assert!(a.take_change().is_ok() && a.take_change().is_err());
    drop((held, second, streamed));
    usages.set_callers(&changed);
    assert_eq!(names(&usages), ["a", "c"]);

    let gauges = usages.gauges();
    let a = gauges.iter().find(|it| it.caller.as_str() == "a").unwrap();
    let expected = [
        ("changes_per_minute", 1),
        ("devices_per_minute", 0),
        ("streams", 0),
        ("inflight_calls", 1),
    ];
    assert_eq!((a.calls, a.streams, a.refusals), (0, 0, expected));
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_the_anonymous_caller_has_no_limits() {
    let usages = CallerUsages::default();
    let usage = usages.usage(&caller_of(&http::Extensions::new()));
    let held: Vec<_> = (0..10_000).map(|_| usage.begin(false).unwrap()).collect();
    assert!(usage.take_change().is_ok());
    let gauges = usages.gauges();
    assert_eq!((gauges.len(), gauges[0].calls), (1, held.len() as u64));
}

/// Refuses another stream of a caller that has all it may have. Returns the time of the refusal.
async fn refuse_stream(caller: Arc<CallerUsage>) -> Instant {
    assert!(caller.delay_refusal(caller.begin(true)).await.is_err());
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn the_delayed_refusals_of_all_callers_together_are_bounded() {
    let (_usages, callers) = usages(&[("a", "streams = 1"), ("b", "streams = 1")]);
    let _streams: Vec<_> = callers.iter().map(|caller| caller.begin(true).unwrap()).collect();
    let refuse = |caller: &Arc<CallerUsage>| Box::pin(refuse_stream(Arc::clone(caller)));
    let mut delayed: Vec<_> =
        (0..MAX_DELAYED_REFUSALS).map(|number| refuse(&callers[number % 2])).collect();
    for refusal in &mut delayed {
        assert!(refusal.now_or_never().is_none());
    }
    for caller in &callers {
        assert!(refuse(caller).now_or_never().is_some());
    }
    // One has gone, and its place is free.
    drop(delayed.pop());
    assert_eq!(refuse(&callers[0]).now_or_never(), None);
    join_all(delayed).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_many_delayed_refusals_waits_longer_and_another_one_does_not() {
    let (_usages, callers) = usages(&[("a", "streams = 1"), ("b", "streams = 1")]);
    let _streams: Vec<_> = callers.iter().map(|caller| caller.begin(true).unwrap()).collect();
    let refuse = |caller: &Arc<CallerUsage>| refuse_stream(Arc::clone(caller));
    let start = Instant::now();
    let ends = join_all((0..900).map(|_| refuse(&callers[0])));
    let (ends, other) = tokio::join!(ends, refuse(&callers[1]));
    assert!(other - start <= MAX_REFUSAL_DELAY);
    let within = |limit| ends.iter().filter(|end| **end - start <= limit).count();
    assert!(within(MAX_REFUSAL_DELAY) <= 400, "{}", within(MAX_REFUSAL_DELAY));
    assert_eq!(within(MAX_CROWDED_DELAY), 900);
    // None is counted any more.
    assert!(refuse(&callers[0]).await - start <= MAX_CROWDED_DELAY + MAX_REFUSAL_DELAY);
    assert_eq!(callers[0].delayed.load(Relaxed), 0);
}
