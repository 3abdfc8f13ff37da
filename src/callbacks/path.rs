//! The path of a callback.

use serde::Deserialize;

use crate::domain::newtypes::{AccountName, CallbackService};

/// Maximum number of bytes of a segment.
const MAX_SEGMENT: usize = 128;

/// The parameters of a callback's path, as sent.
#[derive(Deserialize)]
pub(super) struct CallbackPath {
    pub(super) account: Option<String>,
    pub(super) service: String,
    pub(super) secret: Option<String>,
}

impl CallbackPath {
    /// False if a segment is too long.
    pub(super) fn is_valid(&self) -> bool {
        let segments = self.account.iter().chain(&self.secret).chain([&self.service]);
        segments.into_iter().all(|segment| segment.len() <= MAX_SEGMENT)
    }

    /// Returns the account. An invalid name counts as none.
    pub(super) fn account_name(&self) -> Option<AccountName> {
        self.account.as_deref().and_then(|name| AccountName::parse(name).ok())
    }

    /// Returns the service. An invalid name counts as none.
    pub(super) fn callback_service(&self) -> Option<CallbackService> {
        CallbackService::parse(self.service.as_str()).ok()
    }
}
