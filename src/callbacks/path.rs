//! The path of a callback.

use axum::extract::RawPathParams;

use crate::domain::newtypes::{AccountName, CallbackService};

/// Maximum number of bytes of a segment.
const MAX_SEGMENT: usize = 128;

/// The parameters of a callback's path, as sent.
#[derive(Default)]
pub(super) struct CallbackPath {
    pub(super) account: Option<String>,
    pub(super) service: String,
    pub(super) secret: Option<String>,
}

impl CallbackPath {
    /// Returns `None` if a segment is too long.
    pub(super) fn from_params(params: &RawPathParams) -> Option<Self> {
        let mut path = Self::default();
        for (name, value) in params {
            if value.len() > MAX_SEGMENT {
                return None;
            }
            match name {
                "account" => path.account = Some(value.to_owned()),
                "service" => path.service = value.to_owned(),
                _ => path.secret = Some(value.to_owned()),
            }
        }
        Some(path)
    }

    /// Returns the account. An invalid name counts as none.
    pub(super) fn account_name(&self) -> Option<AccountName> {
        let account = self.account.as_deref();
        account.and_then(|name| AccountName::parse(name).ok())
    }

    /// Returns the service. An invalid name counts as none.
    pub(super) fn callback_service(&self) -> Option<CallbackService> {
        CallbackService::parse(self.service.as_str()).ok()
    }
}
