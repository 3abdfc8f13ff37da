//! Errors of a policy file.

use std::fmt;

/// Maximum number of errors that are kept.
const MAX_ERRORS: usize = 100;

/// A problem in a policy file. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// Line of the problem, from 1.
    pub line: usize,
    /// Path of the key, such as `caller[0].allow[1].accounts[2]`. Empty for a syntax error.
    pub key: String,
    /// The problem, and the values that are valid.
    pub problem: String,
}

/// All problems of a policy file, by line. At most 100 are kept, the others are counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyErrors {
    errors: Vec<PolicyError>,
    omitted: usize,
}

/// Collects errors, and converts positions in the text to lines.
pub(super) struct ErrorCollector {
    /// Position of the first byte of each line but the first.
    line_starts: Vec<usize>,
    errors: Vec<PolicyError>,
    omitted: usize,
}

// === impl PolicyError ===

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "line {}: {}", self.line, self.problem),
            key => write!(f, "line {}: {key}: {}", self.line, self.problem),
        }
    }
}

// === impl PolicyErrors ===

impl PolicyErrors {
    /// A problem of the file as a whole.
    pub(super) fn of_file(problem: String) -> Self {
        let error = PolicyError { line: 1, key: String::new(), problem };
        Self { errors: vec![error], omitted: 0 }
    }

    /// Iterates over the errors by line.
    pub fn iter(&self) -> impl Iterator<Item = &PolicyError> {
        self.errors.iter()
    }

    /// Returns the number of errors, with those that were not kept.
    pub fn count(&self) -> usize {
        self.errors.len() + self.omitted
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

// === impl ErrorCollector ===

impl ErrorCollector {
    pub(super) fn new(text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = newlines.map(|(position, _)| position + 1).collect();
        Self { line_starts, errors: Vec::new(), omitted: 0 }
    }

    /// Returns the line of a position.
    pub(super) fn line(&self, position: usize) -> usize {
        1 + self.line_starts.partition_point(|start| *start <= position)
    }

    pub(super) fn add(
        &mut self,
        position: usize,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) {
        if self.errors.len() == MAX_ERRORS {
            self.omitted += 1;
            return;
        }
        let line = self.line(position);
        self.errors.push(PolicyError { line, key: key.into(), problem: problem.into() });
    }

    /// Returns the value if there is no error.
    pub(super) fn into_result<T>(mut self, value: T) -> Result<T, PolicyErrors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by_key(|error| error.line);
        Err(PolicyErrors { errors: self.errors, omitted: self.omitted })
    }
}
