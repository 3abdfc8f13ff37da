//! The caller of a call: its identity and its permissions.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    access::{
        identity::Identity,
        policy::{AccountScope, CallerPolicy, Permission, Policy},
    },
    domain::{caller_name::CallerName, change_type::ChangeType, newtypes::AccountName},
};

/// The caller of a call. Extension of its request. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None` if callers have no identity.
    identity: Option<Arc<Identity>>,
    policy: Arc<CallerPolicy>,
    /// The policy that has this entry. Weak, so that a long stream does not keep an old policy in memory.
    found_in: Weak<Policy>,
    /// False for a caller of the gRPC port without an identity.
    may_operate: bool,
}

/// A call that the policy does not permit. The message depends on the policy and the request alone, never on what
/// the journal contains.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PermissionDenied {
    caller: CallerName,
    permission: Permission,
    scope: DeniedScope,
}

/// The scope of a missing permission.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DeniedScope {
    AnyAccount,
    AllAccounts,
    Account(AccountName, Option<ChangeType>),
    /// Operators need an identity.
    WithoutIdentity,
}

impl Caller {
    /// Finds the entry of an identity in a policy. `None` if the policy does not know the identity.
    pub(super) fn find(identity: &Arc<Identity>, policy: &Arc<Policy>) -> Option<Self> {
        let names = identity.names().iter().map(|name| name.as_str());
        let entry = Arc::clone(policy.find(names)?);
        let (identity, found_in) = (Some(Arc::clone(identity)), Arc::downgrade(policy));
        Some(Self { identity, policy: entry, found_in, may_operate: true })
    }

    /// True if the caller was found in this policy.
    pub(super) fn is_found_in(&self, policy: &Arc<Policy>) -> bool {
        std::ptr::eq(self.found_in.as_ptr(), Arc::as_ptr(policy))
    }

    /// Returns the caller with `auth.mode = none`. It has all permissions except `operate`.
    pub fn anonymous() -> Self {
        let policy = CallerPolicy::unrestricted(CallerName::anonymous());
        Self { identity: None, policy, found_in: Weak::new(), may_operate: false }
    }

    /// Returns the caller of calls through the admin socket, which only the user of the gateway can open.
    pub fn local() -> Self {
        let policy = CallerPolicy::unrestricted(CallerName::local());
        Self { identity: None, policy, found_in: Weak::new(), may_operate: true }
    }

    /// True if no policy limits the caller.
    pub fn is_unrestricted(&self) -> bool {
        self.identity.is_none()
    }

    /// Returns the name in the policy.
    pub fn name(&self) -> &CallerName {
        self.policy.name()
    }

    /// Returns the identity. `None` if callers have none.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Returns the entry of the policy.
    pub fn policy(&self) -> &Arc<CallerPolicy> {
        &self.policy
    }

    /// Checks that the caller has a permission on some account.
    ///
    /// # Errors
    ///
    /// The caller has the permission on no account.
    pub fn require_any(&self, permission: Permission) -> Result<(), PermissionDenied> {
        let is_allowed = !self.policy.accounts(permission).is_empty();
        self.check(is_allowed, permission, || DeniedScope::AnyAccount)
    }

    /// Checks that the caller has a permission on an account, [`Permission::Change`] for an operation.
    ///
    /// # Errors
    ///
    /// The caller lacks the permission.
    pub fn require(
        &self,
        permission: Permission,
        account: &AccountName,
        operation: Option<ChangeType>,
    ) -> Result<(), PermissionDenied> {
        let is_allowed = self.policy.allows(permission, account, operation);
        self.check(is_allowed, permission, || DeniedScope::Account(account.clone(), operation))
    }

    /// Checks that the caller may operate on all accounts.
    ///
    /// # Errors
    ///
    /// The caller may operate on some accounts only, or on none.
    pub fn require_operate_everywhere(&self) -> Result<(), PermissionDenied> {
        let is_allowed = self.policy.may_operate_everywhere();
        self.check(is_allowed, Permission::Operate, || DeniedScope::AllAccounts)
    }

    /// Checks that the caller may see the state of the gateway.
    ///
    /// # Errors
    ///
    /// The caller has the permission on some accounts only, or on none.
    pub fn require_monitor_everywhere(&self) -> Result<(), PermissionDenied> {
        let is_allowed = self.policy.may_monitor_everywhere();
        self.check(is_allowed, Permission::Monitor, || DeniedScope::AllAccounts)
    }

    /// Returns the permissions that the caller has on some account and, with true, on all accounts.
    pub fn permissions(&self) -> impl Iterator<Item = (Permission, bool)> {
        let permissions = Permission::ALL.into_iter();
        let permissions = permissions.filter(|it| *it != Permission::Operate || self.may_operate);
        permissions.filter_map(|permission| {
            let scope = self.policy.accounts(permission);
            (!scope.is_empty()).then_some((permission, matches!(scope, AccountScope::All)))
        })
    }

    /// True if the caller may see what belongs to this account. `None` stands for results that belong to no account.
    pub fn sees(&self, permission: Permission, account: Option<&AccountName>) -> bool {
        match account {
            Some(account) => self.policy.allows(permission, account, None),
            None => self.policy.may_operate_everywhere(),
        }
    }

    /// Returns the accounts on which the caller has a permission.
    pub fn scope(&self, permission: Permission) -> AccountScope {
        self.policy.accounts(permission)
    }

    fn check(
        &self,
        is_allowed: bool,
        permission: Permission,
        scope: impl FnOnce() -> DeniedScope,
    ) -> Result<(), PermissionDenied> {
        let denied = |scope| PermissionDenied { caller: self.name().clone(), permission, scope };
        if permission == Permission::Operate && !self.may_operate {
            return Err(denied(DeniedScope::WithoutIdentity));
        }
        if is_allowed { Ok(()) } else { Err(denied(scope())) }
    }
}

impl fmt::Display for PermissionDenied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, permission, scope } = self;
        if *scope == DeniedScope::WithoutIdentity {
            return f.write_str(
                "commands of OperatorService need an auth.mode other than none; on this machine, use admin.socket",
            );
        }
        write!(f, "the caller {caller} lacks the permission `{permission}`")?;
        match scope {
            DeniedScope::AnyAccount => f.write_str(" on any account"),
            DeniedScope::AllAccounts => f.write_str(" on all accounts (`*`)"),
            DeniedScope::Account(account, None) => {
                write!(f, " on the account {}", account.as_str())
            }
            DeniedScope::Account(account, Some(operation)) => {
                let (account, operation) = (account.as_str(), operation.as_str());
                write!(f, " on the account {account} for the operation {operation}")
            }
            DeniedScope::WithoutIdentity => Ok(()),
        }
    }
}
