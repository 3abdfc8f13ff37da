//! The licence texts in the image.

use std::{collections::BTreeSet, process::Command};

/// Targets of the image.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// Returns the linked crates as `name version`.
fn linked() -> BTreeSet<String> {
    let mut crates = BTreeSet::new();
    for target in TARGETS {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--package", "thingspace-gateway"])
            .args(["--edges", "normal", "--prefix", "none", "--format", "{p}", "--target", target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "{tree:?}");
        let tree = String::from_utf8(tree.stdout).expect("text");
        crates.extend(tree.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            // The crates of this workspace have a path.
            (!line.contains("(/")).then(|| format!("{name} {version}"))
        }));
    }
    crates
}

#[test]
fn exactly_the_linked_crates_have_a_licence_text() {
    let all = include_str!("../../licences/THIRD-PARTY.txt");
    let mut documented = BTreeSet::new();
    let line = format!("\n{}\n", "#".repeat(80));
    for licence in all.split(&line).skip(1) {
        let (head, text) = licence.split_once(&format!("\n{}\n", "~".repeat(80))).expect("a text");
        assert!(text.trim().len() > 200, "too short for a licence: {text:?}");
        let (_, crates) = head.split_once("Used by:\n").expect("its crates");
        documented.extend(crates.lines().map(|line| {
            let name = line.split(',').next().unwrap_or_default();
            name.trim().to_owned()
        }));
    }
    let linked = linked();
    let missing: Vec<_> = linked.difference(&documented).collect();
    let extra: Vec<_> = documented.difference(&linked).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "run scripts/licences: missing {missing:?}, not linked {extra:?}"
    );
}
