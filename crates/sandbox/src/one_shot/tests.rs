use super::*;

#[test]
fn a_serial_is_rejected_until_it_has_another_credential() {
    let mut one_shot = OneShot::default();
    assert!(one_shot.should_reject(81, "ff1", Some("old")));
    assert!(one_shot.should_reject(81, "FF1", Some("old")));
    assert!(!one_shot.should_reject(81, "ff1", Some("new")));
    assert!(one_shot.should_reject(81, "ff2", Some("new")));
    assert!(one_shot.should_reject(82, "ff1", Some("new")));
}

#[test]
fn without_a_credential_a_serial_is_rejected_the_first_time_only() {
    let mut one_shot = OneShot::default();
    assert!(one_shot.should_reject(87, "1", None));
    assert!(!one_shot.should_reject(87, "1", None));
}

#[test]
fn the_number_of_stored_serials_is_bounded() {
    let mut one_shot = OneShot::default();
    for serial in 0..=MAX_SERIALS {
        assert!(one_shot.should_reject(87, &serial.to_string(), None));
    }
    assert_eq!((one_shot.rejected.len(), one_shot.order.len()), (MAX_SERIALS, MAX_SERIALS));
    assert!(one_shot.should_reject(87, "0", None));
}
