use super::*;
use crate::domain::{
    change::SentDevice,
    identifier::{DeviceId, IdentifierKind},
    newtypes::ClientReference,
};

const DEVICES: u32 = 10_000;

#[test]
fn only_devices_that_are_looked_up_often_are_in_memory_and_their_size_is_bounded() {
    let device = |number| SentDevice {
        ids: vec![DeviceId::new(IdentifierKind::Eid, format!("{number:032}")).unwrap()],
        client_reference: ClientReference::parse("").unwrap(),
    };
    let devices = Arc::new(EncodedDevices::encode(&(0..DEVICES).map(device).collect::<Vec<_>>()));
    let mut cache = DeviceCache::default();
    let read = |cache: &mut DeviceCache, row, lookups| cache.read_method(row, DEVICES, lookups);
    for row in 1..=60 {
        assert!(matches!(read(&mut cache, row, 100), ReadMethod::Index));
        assert!(matches!(read(&mut cache, row, 1_200), ReadMethod::All));
        cache.keep_recent(row, &devices);
        assert!(matches!(read(&mut cache, row, 1), ReadMethod::Cached(_)));
        let recent = cache.recent.values().filter_map(|one| one.devices.as_ref());
        assert_eq!(cache.recent_bytes, recent.map(|one| one.size()).sum::<usize>());
        assert!(cache.recent_bytes <= MAX_BYTES);
    }
    assert!((2..60).contains(&cache.recent.len()));
    // The first one was removed, and is counted anew.
    assert!(matches!(read(&mut cache, 1, 100), ReadMethod::Index));
    // Devices without recent lookups are not kept.
    cache.keep_recent(99, &devices);
    assert!(!cache.recent.contains_key(&99));
}
