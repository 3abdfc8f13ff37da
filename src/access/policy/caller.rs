//! A caller of the policy file, and its permissions.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, LazyLock},
};

use crate::{
    access::policy::{
        limits::CallerLimits,
        pattern::{AccountPattern, IdentityPattern},
    },
    domain::{caller_name::CallerName, change_type::ChangeType, newtypes::AccountName},
};

/// A permission on accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// The change RPCs.
    Change,
    /// `WatchRequest` and `WatchAccount`.
    Watch,
    /// `GetChange`, `ListChanges`, `ListDevices`, `ListDeviceResults` and `ListServicePlans`.
    List,
    /// `GetStatus`, on all accounts. [`Permission::Operate`] includes it.
    Monitor,
    /// `OperatorService` and, on all accounts, results that belong to no account.
    Operate,
}

/// A caller: its identities, its permissions and its limits. Never changes: a new policy has new callers.
#[derive(Debug)]
pub struct CallerPolicy {
    name: CallerName,
    /// Line of the caller in the file. 0 if it comes from no file.
    line: usize,
    identities: Vec<IdentityPattern>,
    grants: Vec<Grant>,
    limits: CallerLimits,
    scopes: Scopes,
}

/// One `[[caller.allow]]` of the file.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Line of the grant in the file.
    pub line: usize,
    /// The permissions.
    pub permissions: Vec<Permission>,
    /// The accounts that the permissions apply to.
    pub accounts: Vec<AccountPattern>,
    /// The operations that [`Permission::Change`] applies to. `None` for all.
    pub operations: Option<Vec<ChangeType>>,
}

/// The accounts that a permission applies to. Cheap to clone.
#[derive(Debug, Clone)]
pub enum AccountScope {
    /// All accounts.
    All,
    /// The accounts of a set, which can be empty.
    Only(Arc<AccountSet>),
}

/// A set of accounts.
#[derive(Debug, Default)]
pub struct AccountSet {
    exact: HashSet<Box<str>>,
    patterns: Vec<AccountPattern>,
}

/// The accounts of each permission, from all grants.
#[derive(Debug)]
struct Scopes {
    /// By the index of the operation.
    change: [AccountScope; ChangeType::ALL.len()],
    /// With any operation.
    any_change: AccountScope,
    watch: AccountScope,
    list: AccountScope,
    monitor: AccountScope,
    operate: AccountScope,
}

static NO_ACCOUNTS: LazyLock<Arc<AccountSet>> = LazyLock::new(Arc::default);

// === impl Permission ===

impl Permission {
    /// All permissions.
    pub const ALL: [Self; 5] =
        [Self::Change, Self::Watch, Self::List, Self::Monitor, Self::Operate];

    /// Returns the name in the policy file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Watch => "watch",
            Self::List => "list",
            Self::Monitor => "monitor",
            Self::Operate => "operate",
        }
    }

    /// Returns the permission with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl CallerPolicy ===

impl CallerPolicy {
    /// Returns a caller that may do everything and has no limits, for `auth.mode = none`.
    pub fn unrestricted(name: CallerName) -> Arc<Self> {
        Arc::new(Self {
            name,
            line: 0,
            identities: Vec::new(),
            grants: Vec::new(),
            limits: CallerLimits::default(),
            scopes: Scopes::all(),
        })
    }

    pub(super) fn new(
        name: CallerName,
        line: usize,
        identities: Vec<IdentityPattern>,
        grants: Vec<Grant>,
        limits: CallerLimits,
    ) -> Self {
        let scopes = Scopes::new(&grants);
        Self { name, line, identities, grants, limits, scopes }
    }

    /// Returns the name.
    pub fn name(&self) -> &CallerName {
        &self.name
    }

    /// Returns the line of the caller in the file, from 1. 0 if it comes from no file.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the identities, in the order of the file.
    pub fn identities(&self) -> &[IdentityPattern] {
        &self.identities
    }

    /// Returns the grants, in the order of the file.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Returns the limits.
    pub fn limits(&self) -> &CallerLimits {
        &self.limits
    }

    /// Returns true if the caller has a permission on an account. `operation` limits
    /// [`Permission::Change`]: `None` asks for the permission for any operation.
    pub fn allows(
        &self,
        permission: Permission,
        account: &AccountName,
        operation: Option<ChangeType>,
    ) -> bool {
        self.scopes.get(permission, operation).contains(account.as_str())
    }

    /// Returns the accounts on which the caller has a permission, [`Permission::Change`] for any
    /// operation.
    pub fn accounts(&self, permission: Permission) -> AccountScope {
        self.scopes.get(permission, None).clone()
    }

    /// Returns true if the caller may operate on all accounts, and so see results that belong to none.
    pub fn may_operate_everywhere(&self) -> bool {
        matches!(self.scopes.operate, AccountScope::All)
    }

    /// Returns true if the caller may see the state of the gateway.
    pub fn may_monitor_everywhere(&self) -> bool {
        matches!(self.scopes.monitor, AccountScope::All)
    }
}

// === impl Grant ===

impl Grant {
    /// Returns true if the grant has a permission, for an operation if one is named.
    pub fn has(&self, permission: Permission, operation: Option<ChangeType>) -> bool {
        let is_for = |operations: &Vec<ChangeType>| {
            operation.is_none_or(|operation| operations.contains(&operation))
        };
        let includes = |granted: &Permission| {
            *granted == permission
                || (permission, *granted) == (Permission::Monitor, Permission::Operate)
        };
        self.permissions.iter().any(includes)
            && (permission != Permission::Change || self.operations.as_ref().is_none_or(is_for))
    }

    /// Returns the first pattern that matches an account.
    pub fn account_pattern(&self, account: &str) -> Option<&AccountPattern> {
        self.accounts.iter().find(|pattern| pattern.matches(account))
    }
}

// === impl AccountScope ===

impl AccountScope {
    /// Returns true if the scope contains an account.
    pub fn contains(&self, account: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(set) => set.contains(account),
        }
    }

    /// Returns true if the scope contains no account.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Only(set) => set.exact.is_empty() && set.patterns.is_empty(),
        }
    }

    fn new<'a>(patterns: impl Iterator<Item = &'a AccountPattern>) -> Self {
        let mut set = AccountSet::default();
        let mut known = HashSet::new();
        for pattern in patterns {
            if pattern.matches_all() {
                return Self::All;
            }
            if pattern.is_exact() {
                set.exact.insert(pattern.as_str().into());
            } else if known.insert(pattern) {
                set.patterns.push(pattern.clone());
            }
        }
        match set.exact.is_empty() && set.patterns.is_empty() {
            true => Self::Only(Arc::clone(&NO_ACCOUNTS)),
            false => Self::Only(Arc::new(set)),
        }
    }
}

// === impl AccountSet ===

impl AccountSet {
    /// Returns true if the set contains an account.
    pub fn contains(&self, account: &str) -> bool {
        self.exact.contains(account) || self.patterns.iter().any(|it| it.matches(account))
    }

    /// Iterates over the accounts that are named without `*`, in no order.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(|account| &**account)
    }

    /// Returns the patterns with `*`.
    pub fn patterns(&self) -> &[AccountPattern] {
        &self.patterns
    }
}

// === impl Scopes ===

impl Scopes {
    fn all() -> Self {
        Self {
            change: [const { AccountScope::All }; ChangeType::ALL.len()],
            any_change: AccountScope::All,
            watch: AccountScope::All,
            list: AccountScope::All,
            monitor: AccountScope::All,
            operate: AccountScope::All,
        }
    }

    fn new(grants: &[Grant]) -> Self {
        let scope = |permission, operation| {
            let grants = grants.iter().filter(|grant| grant.has(permission, operation));
            AccountScope::new(grants.flat_map(|grant| &grant.accounts))
        };
        Self {
            change: ChangeType::ALL.map(|operation| scope(Permission::Change, Some(operation))),
            any_change: scope(Permission::Change, None),
            watch: scope(Permission::Watch, None),
            list: scope(Permission::List, None),
            monitor: scope(Permission::Monitor, None),
            operate: scope(Permission::Operate, None),
        }
    }

    fn get(&self, permission: Permission, operation: Option<ChangeType>) -> &AccountScope {
        match (permission, operation) {
            (Permission::Change, Some(operation)) => {
                let index = ChangeType::ALL.iter().position(|it| *it == operation);
                index.and_then(|index| self.change.get(index)).unwrap_or(&self.any_change)
            }
            (Permission::Change, None) => &self.any_change,
            (Permission::Watch, _) => &self.watch,
            (Permission::List, _) => &self.list,
            (Permission::Monitor, _) => &self.monitor,
            (Permission::Operate, _) => &self.operate,
        }
    }
}
