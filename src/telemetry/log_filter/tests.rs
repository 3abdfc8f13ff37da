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
fn the_value_of_a_field_is_a_text_and_not_a_regular_expression() {
    // As a regular expression, it would have a million states and more.
    LogFilter::check(&format!("info,[{{field=.*a{}}}]", ".".repeat(20))).unwrap();
    LogFilter::check("info,[{field=(}]=debug").unwrap();
    assert!(LogFilter::check("no=such=level").is_err());
}
