use proptest::prelude::*;

use super::*;

fn any_id() -> impl Strategy<Value = DeviceId> {
    prop_oneof![
        "[0-9]{32}".prop_map(|id| DeviceId::new(IdentifierKind::Eid, id)),
        "[0-9]{19,20}".prop_map(|id| DeviceId::new(IdentifierKind::Iccid, id)),
        "[0-9]{15,16}".prop_map(|id| DeviceId::new(IdentifierKind::Imei, id)),
        "[0-9A-Fa-f]{14}".prop_map(|id| DeviceId::new(IdentifierKind::Meid, id)),
        "1[0-9]{10}".prop_map(|id| DeviceId::new(IdentifierKind::Msisdn, id)),
    ]
    .prop_map(|id| id.unwrap())
}

fn any_device() -> impl Strategy<Value = SentDevice> {
    (prop::collection::vec(any_id(), 1..4), "\\PC{0,64}").prop_map(|(ids, reference)| SentDevice {
        ids,
        client_reference: ClientReference::parse(reference).unwrap(),
    })
}

proptest! {
    #[test]
    fn devices_are_decoded_as_they_were_sent_and_found_by_each_identifier(
        devices in prop::collection::vec(any_device(), 1..200),
    ) {
        let encoded = EncodedDevices::encode(&devices);
        prop_assert_eq!(encoded.decode().unwrap(), devices.clone());
        let reopened = EncodedDevices::from_blocks(encoded.blocks.clone()).unwrap();
        prop_assert_eq!(&reopened.keys, &encoded.keys);
        let parts = encoded.key_parts();
        for (index, device) in (0..).zip(&devices) {
            prop_assert_eq!(&encoded.device(index).unwrap(), device);
            for id in &device.ids {
                let hash = IdHash::of(&MatchKey::from_id(id));
                prop_assert!(encoded.candidates(hash).any(|found| found == index));
                let part = &parts[part_of(hash, encoded.keys.len())];
                prop_assert!(find_in_part(part, hash).contains(&index));
            }
        }
    }

    #[test]
    fn damaged_blocks_are_rejected_without_a_panic(
        devices in prop::collection::vec(any_device(), 1..5),
        cut in 1_usize..20,
        junk in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let block = EncodedDevices::encode(&devices).blocks.remove(0);
        let _ = decode_block(&junk);
        let _ = decode_device(&junk, 3);
        let cut = block.len().saturating_sub(cut);
        prop_assert_ne!(decode_block(&block[..cut]).ok(), Some(devices));
    }
}
