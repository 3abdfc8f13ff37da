use super::*;

#[test]
fn a_post_office_box_is_recognised_however_it_is_spelled_and_streets_are_not() {
    for line in [
        "PO Box 12",
        "P.O. BOX 12",
        "p o box 7",
        "P. O. Box 7",
        "Post Office Box 9",
        "POBox 3",
        "POB 12",
        "c/o Smith, P.O.Box 1",
        "P.O.Box12",
        "p. o. b. 5",
        "Suite 2, pob17",
    ] {
        assert!(is_po_box(line), "{line}");
    }
    for line in [
        "1 Main St",
        "5 Box Elder Rd",
        "12 Pobbles Lane",
        "1 Pobox Street",
        "9 P O Boxwood Ct",
        "7 Post Office Road",
        "3 Po Street",
    ] {
        assert!(!is_po_box(line), "{line}");
    }
}
