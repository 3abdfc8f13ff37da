use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_reports_the_events_since_the_last_one() {
    let throttle = LogThrottle::new(Duration::from_secs(60));
    assert_eq!(throttle.count(0), None);
    assert_eq!(throttle.count(2), Some(2));
    assert_eq!(throttle.count(3), None);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(throttle.count(0), Some(3));
    assert_eq!(throttle.count(0), None);
}
