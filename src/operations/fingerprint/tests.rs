use super::*;

fn hash(texts: &[&str]) -> [u8; 32] {
    let mut writer = FingerprintWriter::new();
    texts.iter().for_each(|text| writer.add(text));
    writer.finish()
}

#[test]
fn different_texts_have_different_hashes() {
    let long = "x".repeat(254);
    let longer = "x".repeat(255);
    let inputs: &[&[&str]] = &[
        &[],
        &[""],
        &["", ""],
        &["ab", "c"],
        &["a", "bc"],
        &["abc"],
        &[&long],
        &[&longer],
        &[&long, "x"],
        &["\u{1}a"],
    ];
    for (place, first) in inputs.iter().enumerate() {
        for (other_place, second) in inputs.iter().enumerate() {
            assert_eq!(hash(first) == hash(second), place == other_place, "{first:?} {second:?}");
        }
    }
    let mut device = FingerprintWriter::new();
    device.add("a");
    device.begin_device(0);
    assert_ne!(device.finish(), hash(&["a"]));
}

#[test]
fn the_hash_does_not_depend_on_the_chunks() {
    // Texts that end before, at and after the end of a chunk.
    for length in [1, 7, 255, 1_000, CHUNK - 1, CHUNK, 3 * CHUNK] {
        let text = "y".repeat(length);
        let mut writer = FingerprintWriter::new();
        let mut input = VERSION.to_vec();
        for _ in 0..20 {
            writer.add(&text);
            if length < 255 {
                input.push(u8::try_from(length).unwrap());
            } else {
                input.push(255);
                input.extend_from_slice(&(length as u64).to_be_bytes());
            }
            input.extend_from_slice(text.as_bytes());
        }
        let expected = aws_lc_rs::digest::digest(&SHA256, &input);
        assert_eq!(writer.finish(), expected.as_ref(), "{length}");
    }
}
