use super::*;
use crate::{
    domain::{
        change::SentDevice,
        identifier::{DeviceId, IdentifierKind},
        newtypes::ClientReference,
    },
    journal::sqlite::tables::{columns::part_id, schema},
};

const DEVICES: u32 = 10_000;

fn insert(db: &Connection, row: Row, devices: &EncodedDevices) -> ChangeDeviceTable {
    for (number, block) in (0_i64..).zip(&devices.blocks) {
        let sql = "INSERT INTO device_block (id, devices) VALUES (?, ?)";
        db.execute_cached(sql, rusqlite::params![part_id(row, number), block]).unwrap();
    }
    ChangeDeviceTable { row, device_count: DEVICES, key_count: devices.keys.len() }
}

#[test]
fn only_devices_that_are_looked_up_often_are_in_memory_and_their_size_is_bounded() {
    let mut db = Connection::open_in_memory().unwrap();
    schema::initialize(&mut db).unwrap();
    let device = |number| SentDevice {
        ids: vec![DeviceId::new(IdentifierKind::Eid, format!("{number:032}")).unwrap()],
        client_reference: ClientReference::parse("").unwrap(),
    };
    let devices = EncodedDevices::encode(&(0..DEVICES).map(device).collect::<Vec<_>>());
    let mut cache = DeviceCache::default();
    for row in 1..=60 {
        let change = insert(&db, row, &devices);
        assert!(cache.recent(&db, change, 100).unwrap().is_none());
        let loaded = cache.recent(&db, change, 1_200).unwrap().unwrap();
        assert_eq!((&loaded.blocks, &loaded.keys), (&devices.blocks, &devices.keys));
        assert!(cache.recent(&db, change, 1).unwrap().is_some());
        let bytes: usize = cache
            .recent
            .values()
            .filter_map(|one| one.devices.as_ref())
            .map(|one| one.size())
            .sum();
        assert_eq!(cache.recent_bytes, bytes);
        assert!(bytes <= MAX_BYTES);
    }
    assert!((2..60).contains(&cache.recent.len()));
    // The first one was removed, and is counted anew.
    let first = ChangeDeviceTable { row: 1, device_count: DEVICES, key_count: devices.keys.len() };
    assert!(cache.recent(&db, first, 100).unwrap().is_none());
}
