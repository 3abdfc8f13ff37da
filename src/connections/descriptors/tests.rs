use proptest::prelude::*;

use super::*;

#[test]
fn a_process_with_enough_descriptors_has_the_full_limits() {
    for full in [false, true].map(ConnectionLimits::full) {
        let needed = full.sum() + RESERVED;
        assert_eq!(ConnectionLimits::divide(needed, full).unwrap(), full);
        assert_eq!(ConnectionLimits::divide(usize::MAX / 8, full).unwrap(), full);
        assert_ne!(ConnectionLimits::divide(needed - 1, full).unwrap(), full);
    }
}

#[test]
fn too_few_descriptors_name_the_remedy() {
    let error = ConnectionLimits::divide(MIN_DESCRIPTORS - 1, ConnectionLimits::FULL).unwrap_err();
    assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
}

proptest! {
    #[test]
    fn the_limits_never_exceed_the_descriptors_and_each_port_has_some(
        available in MIN_DESCRIPTORS..30_000,
        has_console: bool,
    ) {
        let full = ConnectionLimits::full(has_console);
        let limits = ConnectionLimits::divide(available, full).unwrap();
        prop_assert!(limits.sum() + RESERVED.min(available * 5 / 8) <= available);
        prop_assert!(limits.console <= 64 && (limits.console >= 16) == has_console);
        prop_assert!(limits.admin >= 32 && limits.callbacks >= 128 && limits.grpc >= 128);
        prop_assert!(limits.grpc <= 10_000 && limits.callbacks <= 8_192 && limits.admin <= 256);
    }
}
