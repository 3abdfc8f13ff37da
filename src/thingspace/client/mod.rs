//! The client of ThingSpace.

mod changes;
mod lookups;

pub use changes::ThingSpace;
