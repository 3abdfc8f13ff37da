use super::*;

#[test]
fn effective_dates_are_us_style_without_leading_zeros() {
    assert_eq!(format_us_date(0), "1/1/1970 12:00:00 AM");
    assert_eq!(format_us_date(1_527_768_000_000), "5/31/2018 12:00:00 AM");
    assert_eq!(format_us_date(1_709_164_800_000), "2/29/2024 12:00:00 AM");
}
