"""The parts of scripts/release: `build` makes the artifacts of a release, `check` verifies each of them."""
