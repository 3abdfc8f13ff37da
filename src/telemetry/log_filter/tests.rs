use super::*;

#[tokio::test(start_paused = true)]
async fn another_filter_applies_until_its_end_and_an_invalid_one_changes_nothing() {
    let filter = LogFilter::new(None, "info".into());
    assert!(filter.set("no=such=level", None).is_err());
    assert_eq!(filter.current(), ("info".into(), None));

    let end = Instant::now() + Duration::from_secs(900);
    filter.set("debug", Some(Duration::from_secs(900))).unwrap();
    assert_eq!(filter.current(), ("debug".into(), Some(end)));
    // A later filter replaces it, and its end.
    filter.set("warn", Some(Duration::from_secs(1_800))).unwrap();
    sleep_until(end + Duration::from_secs(1)).await;
    assert_eq!(filter.current().0, "warn");
    sleep_until(end + Duration::from_secs(901)).await;
    assert_eq!(filter.current(), ("info".into(), None));

    filter.set("debug", None).unwrap();
    assert_eq!(filter.current(), ("debug".into(), None), "until a restart");
    filter.set("", Some(Duration::from_secs(1))).unwrap();
    assert_eq!(filter.current(), ("info".into(), None));
}

#[test]
fn a_directive_with_the_value_of_a_field_is_refused() {
    // The first value would be an automaton with a million states and more.
    let large = format!("info,[{{field=.*a{}}}]", ".".repeat(20));
    // Equal directives, and braces without an end.
    for filter in [&large, "x[s{f=v}],x[s{f=v}]=trace", "[s{f=v", "[{a,b=1}]", "a[s{{f=v}}]"] {
        assert!(LogFilter::check(filter).is_err(), "{filter}");
    }
    for filter in ["info,x[s{f}]=debug", "x[s]=trace,y[{a}]=info", "a=warn"] {
        LogFilter::check(filter).unwrap();
    }
}
