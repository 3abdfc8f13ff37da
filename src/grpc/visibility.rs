//! Finds changes and requests that a caller may see.
//!
//! A change or a request of an account without the permission looks like one that does not exist.

use std::sync::Arc;

use crate::{
    access::{
        Caller,
        policy::{AccountScope, Permission},
    },
    domain::{
        change::Change,
        newtypes::{AccountName, RequestId},
    },
    grpc::error::{ApiError, reason::ErrorReason},
    journal::{ChangeSelector, Journal, VisibleAccounts, WatchTarget},
};

/// The changes and requests that a caller may see with one permission.
pub(super) struct Visibility<'a> {
    pub(super) journal: &'a dyn Journal,
    pub(super) caller: &'a Caller,
    pub(super) permission: Permission,
}

/// The accounts that a list of changes is limited to.
#[derive(Debug, Clone, Default)]
pub(super) struct ListScope {
    /// The only account.
    pub(super) account: Option<AccountName>,
    /// Several accounts.
    pub(super) accounts: Option<Arc<dyn VisibleAccounts>>,
}

impl Visibility<'_> {
    /// Checks that the caller has the permission on an account that the call names.
    pub(super) fn require(&self, account: &AccountName) -> Result<(), ApiError> {
        Ok(self.caller.require(self.permission, account, None)?)
    }

    /// Returns a change that the caller may see.
    pub(super) async fn change(&self, selector: ChangeSelector) -> Result<Change, ApiError> {
        if let ChangeSelector::Key(account, _) = &selector {
            self.require(account)?;
        }
        let change = self.journal.change(selector).await?;
        let visible = change.filter(|change| self.sees(Some(&change.account)));
        visible.ok_or_else(|| self.not_found())
    }

    /// Checks that the caller may see a target, and returns its account. A request can belong to no account, and for
    /// a caller that no policy limits, it is not looked up.
    pub(super) async fn account_of(
        &self,
        target: &WatchTarget,
    ) -> Result<Option<AccountName>, ApiError> {
        match target {
            WatchTarget::Account(account) => {
                self.require(account)?;
                Ok(Some(account.clone()))
            }
            WatchTarget::Change(id) => {
                Ok(Some(self.change(ChangeSelector::Id(*id)).await?.account))
            }
            WatchTarget::Request(id) => self.account_of_request(id).await,
        }
    }

    async fn account_of_request(&self, id: &RequestId) -> Result<Option<AccountName>, ApiError> {
        if self.caller.is_unrestricted() {
            return Ok(None);
        }
        let account = self.journal.account_of_request(id.clone()).await?;
        if self.sees(account.as_ref()) { Ok(account) } else { Err(self.not_found()) }
    }

    /// Limits a list of changes to one account, or to those that the caller may see.
    pub(super) fn list_scope(&self, account: Option<AccountName>) -> Result<ListScope, ApiError> {
        if let Some(account) = &account {
            self.require(account)?;
            return Ok(ListScope { account: Some(account.clone()), accounts: None });
        }
        let scope = self.caller.scope(self.permission);
        Ok(match only_account(&scope) {
            Some(account) => ListScope { account: Some(account), accounts: None },
            None if matches!(scope, AccountScope::All) => ListScope::default(),
            None => ListScope { account: None, accounts: Some(Arc::new(scope)) },
        })
    }

    fn sees(&self, account: Option<&AccountName>) -> bool {
        // Without a policy, every client sees everything.
        self.caller.is_unrestricted() || self.caller.sees(self.permission, account)
    }

    /// The error for a change or request that does not exist or that the caller may not see.
    fn not_found(&self) -> ApiError {
        let Self { caller, permission, .. } = self;
        if caller.is_unrestricted() {
            return ApiError::change_not_found();
        }
        let name = caller.name();
        let message = format!(
            "no such change or request, or the caller {name} lacks the permission `{permission}` on its account"
        );
        ApiError::new(ErrorReason::ChangeNotFound, message)
    }
}

/// Returns the account of a scope that has one account and no pattern.
fn only_account(scope: &AccountScope) -> Option<AccountName> {
    let AccountScope::Only(set) = scope else {
        return None;
    };
    let mut exact = set.exact();
    let account = exact.next().filter(|_| set.patterns().is_empty() && exact.next().is_none());
    account.and_then(|name| AccountName::parse(name).ok())
}

impl VisibleAccounts for AccountScope {
    fn contains(&self, account: &AccountName) -> bool {
        Self::contains(self, account.as_str())
    }
}
