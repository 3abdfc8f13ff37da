//! The settings of the client.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use url::Url;

use crate::{
    operations::WireSettings,
    thingspace::credentials::{CredentialSource, FailedLoginStore},
};

/// The settings of the client.
pub struct ThingSpaceSettings {
    /// The base URL, such as `https://thingspace.verizon.com/api`: `http` or `https`, without user name,
    /// query and fragment.
    pub base_url: Url,
    /// The settings of the requests of changes.
    pub wire: WireSettings,
    /// Time-out of a request. The connection may take half of it, at most 10 s.
    pub request_timeout: Duration,
    /// The source of the credentials.
    pub credentials: Arc<dyn CredentialSource>,
    /// The store of failed log-ins.
    pub failed_logins: Arc<dyn FailedLoginStore>,
    /// Maximum number of changes a minute.
    pub changes_per_minute: NonZeroU32,
    /// Maximum number of lookups a minute.
    pub lookups_per_minute: NonZeroU32,
}
