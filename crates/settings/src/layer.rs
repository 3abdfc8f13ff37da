//! The values of one source.

use std::collections::BTreeMap;

use crate::error::SettingOrigin;

/// The values that one source sets, by key.
pub(crate) type Layer = BTreeMap<&'static str, RawValue>;

/// An unparsed value. Not `Debug`: it may be a secret.
pub(crate) struct RawValue {
    pub(crate) text: String,
    pub(crate) origin: SettingOrigin,
}
