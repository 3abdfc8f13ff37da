//! Explains the decisions of a policy.

use std::fmt;

use crate::{
    access::policy::{
        caller::{CallerPolicy, Grant, Permission},
        limits::CallerLimit,
        policy::Policy,
    },
    domain::{change_type::ChangeType, newtypes::AccountName},
};

/// A question to a policy.
#[derive(Debug, Clone)]
pub struct Question {
    /// The names of the identity.
    pub identities: Vec<String>,
    /// The permission. `None` asks for all.
    pub permission: Option<Permission>,
    /// The account. `None` asks for any.
    pub account: Option<AccountName>,
    /// The operation. `None` asks for any.
    pub operation: Option<ChangeType>,
}

/// The answer to a [`Question`]. `Display` has several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// True if the policy grants the permission in question.
    pub is_allowed: bool,
    lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl Policy {
    /// Explains which caller an identity belongs to, and why something is allowed or denied.
    pub fn explain(&self, question: &Question) -> Explanation {
        let names = question.identities.iter().map(String::as_str);
        let Some(caller) = self.find(names) else {
            let count = self.callers().len();
            let line = format!("denied: no identity of the {count} callers matches");
            return Explanation { is_allowed: false, lines: vec![line] };
        };
        let mut lines = vec![match_line(caller, &question.identities)];
        let is_allowed = match question.permission {
            Some(permission) => explain_permission(caller, permission, question, &mut lines),
            None => {
                lines.extend(caller.grants().iter().enumerate().map(describe_grant));
                lines.extend(limits_line(caller));
                true
            }
        };
        Explanation { is_allowed, lines }
    }
}

fn match_line(caller: &CallerPolicy, names: &[String]) -> String {
    let matches = caller.identities().iter().enumerate().find_map(|(index, pattern)| {
        let name = names.iter().find(|name| pattern.matches(name))?;
        Some(format!("{name:?} matches identities[{index}] ({pattern})"))
    });
    let (name, line) = (caller.name(), caller.line());
    format!("caller {name} (line {line}): {}", matches.unwrap_or_default())
}

fn explain_permission(
    caller: &CallerPolicy,
    permission: Permission,
    question: &Question,
    lines: &mut Vec<String>,
) -> bool {
    let operation = question.operation;
    let matches_account = |grant: &Grant| {
        question.account.as_ref().is_none_or(|it| grant.account_pattern(it.as_str()).is_some())
    };
    let mut grants = caller.grants().iter().enumerate();
    let granting =
        grants.find(|(_, grant)| grant.has(permission, operation) && matches_account(grant));
    if let Some((index, grant)) = granting {
        lines.push(format!("allowed: {}", describe_grant((index, grant))));
        return true;
    }
    let account = question.account.as_ref().map(|it| format!(" on account {it}"));
    let operation = operation.map(|it| format!(" for the operation {}", it.as_str()));
    let (account, operation) = (account.unwrap_or_default(), operation.unwrap_or_default());
    lines.push(format!(
        "denied: no grant of the caller has the permission {permission}{account}{operation}"
    ));
    let near = caller.grants().iter().enumerate();
    let near = near.filter(|(_, grant)| grant.permissions.contains(&permission));
    lines.extend(near.map(|grant| format!("not enough: {}", describe_grant(grant))));
    false
}

fn describe_grant((index, grant): (usize, &Grant)) -> String {
    let permissions: Vec<&str> = grant.permissions.iter().map(|it| it.as_str()).collect();
    let accounts: Vec<&str> = grant.accounts.iter().map(|it| it.as_str()).collect();
    let operations = grant.operations.as_ref().map(|operations| {
        let names: Vec<&str> = operations.iter().map(|it| it.as_str()).collect();
        format!(", change only for {}", names.join(", "))
    });
    format!(
        "allow[{index}] (line {}) grants {} on accounts {}{}",
        grant.line,
        permissions.join(", "),
        accounts.join(", "),
        operations.unwrap_or_default()
    )
}

fn limits_line(caller: &CallerPolicy) -> Option<String> {
    let limits = CallerLimit::ALL.into_iter().filter_map(|limit| {
        let value = caller.limits().get(limit)?;
        Some(format!("{} = {value}", limit.as_str()))
    });
    let limits: Vec<String> = limits.collect();
    (!limits.is_empty()).then(|| format!("limits: {}", limits.join(", ")))
}
