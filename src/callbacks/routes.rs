//! The routes of the callback listener, and the parameters of their paths.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::domain::newtypes::{AccountName, CallbackService};

/// Maximum number of bytes of a segment of the path.
const MAX_SEGMENT: usize = 128;

/// The parameters of a callback's path.
#[derive(Debug)]
pub(super) struct CallbackPath<'r> {
    pub(super) route: &'static str,
    pub(super) account: Option<Cow<'r, str>>,
    pub(super) service: Cow<'r, str>,
    pub(super) secret: Option<Cow<'r, str>>,
}

/// A path that matches a route, with its parameters as sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoutedPath<'r> {
    /// The template of the route.
    pub(super) route: &'static str,
    account: Option<&'r str>,
    service: &'r str,
    secret: Option<&'r str>,
}

/// Finds the route of a path.
pub(super) fn find(path: &str) -> Option<RoutedPath<'_>> {
    let (account, rest) = match path.strip_prefix("/accounts/") {
        Some(rest) => {
            let (account, rest) = rest.split_once('/')?;
            (Some(account), rest.strip_prefix("callbacks/")?)
        }
        None => (None, path.strip_prefix("/callbacks/")?),
    };
    let (service, secret) = match rest.split_once('/') {
        Some((service, secret)) => (service, Some(secret)),
        None => (rest, None),
    };
    let is_segment = |text: &str| !text.is_empty() && !text.contains('/');
    let are_segments = [account, Some(service), secret].into_iter().flatten().all(is_segment);
    let route = match (account, secret) {
        (None, None) => "/callbacks/{service}",
        (None, Some(_)) => "/callbacks/{service}/{secret}",
        (Some(_), None) => "/accounts/{account}/callbacks/{service}",
        (Some(_), Some(_)) => "/accounts/{account}/callbacks/{service}/{secret}",
    };
    are_segments.then_some(RoutedPath { route, account, service, secret })
}

impl<'r> RoutedPath<'r> {
    /// Decodes the parameters. Returns `None` if one is too long or not UTF-8.
    pub(super) fn decode(self) -> Option<CallbackPath<'r>> {
        let decode = |segment: &'r str| {
            let text = percent_decode_str(segment).decode_utf8().ok()?;
            (text.len() <= MAX_SEGMENT).then_some(text)
        };
        Some(CallbackPath {
            route: self.route,
            account: match self.account {
                Some(account) => Some(decode(account)?),
                None => None,
            },
            service: decode(self.service)?,
            secret: match self.secret {
                Some(secret) => Some(decode(secret)?),
                None => None,
            },
        })
    }
}

impl CallbackPath<'_> {
    /// Returns the account. An invalid name counts as none.
    pub(super) fn account_name(&self) -> Option<AccountName> {
        self.account.as_deref().and_then(|name| AccountName::parse(name).ok())
    }

    /// Returns the service. An invalid name counts as none.
    pub(super) fn callback_service(&self) -> Option<CallbackService> {
        CallbackService::parse(&*self.service).ok()
    }
}

#[cfg(test)]
mod tests;
