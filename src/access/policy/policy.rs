//! All callers of a policy file.

use std::{collections::HashMap, path::Path, sync::Arc};

use crate::access::policy::{caller::CallerPolicy, error::PolicyErrors, file, warnings};

/// The callers of a policy file, in its order.
#[derive(Debug, Default)]
pub struct Policy {
    callers: Vec<Arc<CallerPolicy>>,
    /// Index of the first caller with an identity that has no wildcard.
    exact: HashMap<Box<str>, usize>,
    /// The other identities, as indexes of the caller and in its list, in ascending order.
    patterns: Vec<(usize, usize)>,
}

impl Policy {
    /// Maximum size of a policy file in bytes.
    pub const MAX_BYTES: usize = 1024 * 1024;

    /// Parses the text of a policy file.
    ///
    /// # Errors
    ///
    /// All errors of the text, by line.
    pub fn parse(text: &str) -> Result<Self, PolicyErrors> {
        if text.len() > Self::MAX_BYTES {
            let problem = format!("got {} bytes, expected at most 1 MiB", text.len());
            return Err(PolicyErrors::of_file(problem));
        }
        Ok(Self::new(file::parse(text)?))
    }

    fn new(callers: Vec<CallerPolicy>) -> Self {
        let mut policy = Self::default();
        for (index, caller) in callers.into_iter().enumerate() {
            for (position, identity) in caller.identities().iter().enumerate() {
                match identity.is_exact() {
                    true => {
                        policy.exact.entry(identity.as_str().into()).or_insert(index);
                    }
                    false => policy.patterns.push((index, position)),
                }
            }
            policy.callers.push(Arc::new(caller));
        }
        policy
    }

    /// Returns the first caller, in the order of the file, one of whose identities matches one of the
    /// names. `None` if there is none: everything is denied.
    pub fn find<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Option<&Arc<CallerPolicy>> {
        let names: Vec<&str> = names.into_iter().collect();
        let exact = names.iter().filter_map(|name| self.exact.get(*name)).min().copied();
        // Only a pattern of an earlier caller takes precedence.
        let earlier =
            self.patterns.iter().take_while(|(index, _)| exact.is_none_or(|it| *index < it));
        let mut matching = earlier.filter(|(index, position)| {
            let caller = self.callers.get(*index);
            let pattern = caller.and_then(|caller| caller.identities().get(*position));
            pattern.is_some_and(|pattern| names.iter().any(|name| pattern.matches(name)))
        });
        let by_pattern = matching.next().map(|(index, _)| *index);
        self.callers.get(by_pattern.or(exact)?)
    }

    /// Returns the callers, in the order of the file.
    pub fn callers(&self) -> &[Arc<CallerPolicy>] {
        &self.callers
    }

    /// Returns warnings about probable mistakes, one line each. `changes_per_minute` is the setting
    /// `thingspace.changes_per_minute`, if it is known.
    pub fn warnings(&self, changes_per_minute: Option<u32>) -> Vec<String> {
        warnings::warnings(&self.callers, changes_per_minute)
    }
}

/// Reads a policy file. Reads at most one byte more than is valid.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let limit = u64::try_from(Policy::MAX_BYTES).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
