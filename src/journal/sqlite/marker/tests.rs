use super::*;

fn marker(position: u64) -> Marker {
    Marker { epoch: Epoch(0xfeed), position }
}

#[test]
fn a_torn_slot_leaves_the_other_one_intact() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap(), MarkerFile::Missing);
    create(dir.path(), marker(7)).unwrap();
    for position in 8..12 {
        // Reopened: the stored position wins over the argument.
        let mut slots = MarkerSlots::open(dir.path(), marker(position)).unwrap();
        assert_eq!(slots.written.position, position - 1);
        let before = fs::read(dir.path().join(MARKER)).unwrap();
        slots.write(position).unwrap();
        let after = fs::read(dir.path().join(MARKER)).unwrap();
        assert_eq!(load(dir.path()).unwrap(), MarkerFile::Valid(marker(position)));
        for torn in (0..after.len()).step_by(64) {
            let disk = [&after[..torn], &before[torn..]].concat();
            fs::write(dir.path().join(MARKER), disk).unwrap();
            let MarkerFile::Valid(found) = load(dir.path()).unwrap() else {
                panic!("torn at {torn}: both slots are damaged")
            };
            assert!((position - 1..=position).contains(&found.position));
        }
        fs::write(dir.path().join(MARKER), after).unwrap();
    }
    fs::write(dir.path().join(MARKER), [b'x'; 2 * SLOT]).unwrap();
    assert_eq!(load(dir.path()).unwrap(), MarkerFile::Damaged);
}
