//! The ThingSpace that a journal's changes are sent to.

use url::Url;

/// The origin of a journal: scheme, host and port of ThingSpace's base URL, or `sandbox`.
///
/// A journal answers calls from stored changes, so it works with one ThingSpace only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// The error of a journal that belongs to another ThingSpace.
#[derive(Debug, thiserror::Error)]
#[error(
    "its changes were sent to {recorded}, and the settings name {configured}. A journal works with one \
     ThingSpace only"
)]
pub struct OtherOrigin {
    /// The origin of its first start.
    pub recorded: String,
    /// The origin in the settings.
    pub configured: String,
}

impl Origin {
    /// The origin of the embedded sandbox, whatever its port.
    pub fn sandbox() -> Self {
        Self("sandbox".into())
    }

    /// The origin of a base URL. The path, a default port, the case of the host and its trailing dot
    /// make no difference.
    pub fn from_url(base_url: &Url) -> Self {
        let host = base_url.host_str().unwrap_or_default();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut origin = format!("{}://{host}", base_url.scheme());
        // `None` for the default port of the scheme.
        if let Some(port) = base_url.port() {
            origin.push_str(&format!(":{port}"));
        }
        Self(origin)
    }

    /// Compares the origin of the settings with that of a journal.
    pub(super) fn check(&self, recorded: &str) -> Result<(), OtherOrigin> {
        if recorded == self.0 {
            return Ok(());
        }
        Err(OtherOrigin { recorded: recorded.to_owned(), configured: self.0.clone() })
    }

    /// The origin as text: `https://thingspace.verizon.com`, or `sandbox`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
