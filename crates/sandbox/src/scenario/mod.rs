//! Scenarios: situations that an identifier of a device selects, as the test card numbers of a
//! payment provider do.

pub(crate) mod identifiers;
pub(crate) mod list;
pub(crate) mod table;
#[cfg(test)]
mod tests;
