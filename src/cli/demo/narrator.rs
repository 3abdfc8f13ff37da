//! Output of the demo.

use crate::cli::output::print_line;

/// Prints the steps of the demo, or nothing.
pub(super) struct Narrator {
    is_enabled: bool,
}

// === impl Narrator ===

impl Narrator {
    pub(super) fn new(is_enabled: bool) -> Self {
        Self { is_enabled }
    }

    /// Prints a line.
    pub(super) fn line(&self, text: &str) -> Result<(), String> {
        if !self.is_enabled {
            return Ok(());
        }
        print_line(text).map_err(|error| error.to_string())
    }
}
