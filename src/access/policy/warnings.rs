//! Warnings about probable mistakes in a valid policy file.

use std::{collections::HashMap, sync::Arc};

use crate::access::policy::{
    caller::{CallerPolicy, Permission},
    limits::CallerLimit,
    pattern::IdentityPattern,
};

/// Maximum number of comparisons of two identities. A file that needs more is checked in part.
const MAX_COMPARISONS: usize = 10_000_000;

/// An identity with the index of its caller.
type Owned<'p> = (usize, &'p IdentityPattern);

pub(super) fn warnings(
    callers: &[Arc<CallerPolicy>],
    changes_per_minute: Option<u32>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    check_shadowed(callers, &mut warnings);
    for caller in callers {
        check_caller(caller, &mut warnings);
    }
    check_sum(callers, changes_per_minute, &mut warnings);
    warnings
}

/// Warns about identities that never match, because an earlier caller matches all of their names.
fn check_shadowed(callers: &[Arc<CallerPolicy>], warnings: &mut Vec<String>) {
    let mut exact: HashMap<&str, usize> = HashMap::new();
    let mut patterns: Vec<Owned<'_>> = Vec::new();
    let mut comparisons = 0;
    for (index, caller) in callers.iter().enumerate() {
        let mut shadowed = 0;
        for identity in caller.identities() {
            comparisons += patterns.len();
            if comparisons > MAX_COMPARISONS {
                warnings.push("too many patterns: not all were compared".to_owned());
                return;
            }
            let same = exact.get(identity.as_str()).map(|owner| (*owner, identity));
            let covers = |(_, pattern): &Owned<'_>| pattern.covers(identity);
            let earlier = same.or_else(|| patterns.iter().copied().find(covers));
            let Some((owner, pattern)) = earlier.filter(|(owner, _)| *owner < index) else {
                continue;
            };
            shadowed += 1;
            let owner = callers.get(owner).map_or_else(String::new, |owner| describe(owner));
            warnings.push(format!(
                "{}: the identity {identity} never matches, because {owner} comes first with {pattern}",
                describe(caller)
            ));
        }
        if shadowed > 0 && shadowed == caller.identities().len() {
            warnings.push(format!(
                "{}: never matches, because earlier callers match all of its identities",
                describe(caller)
            ));
        }
        for identity in caller.identities() {
            match identity.is_exact() {
                true => _ = exact.entry(identity.as_str()).or_insert(index),
                false => patterns.push((index, identity)),
            }
        }
    }
}

fn check_caller(caller: &CallerPolicy, warnings: &mut Vec<String>) {
    let name = describe(caller);
    for identity in caller.identities().iter().filter(|it| it.matches_whole_scheme()) {
        warnings.push(format!(
            "{name}: the identity {identity} matches every authenticated client with a name of this \
             form"
        ));
    }
    let may_change = !caller.accounts(Permission::Change).is_empty();
    if may_change && caller.limits().get(CallerLimit::ChangesPerMinute).is_none() {
        warnings.push(format!(
            "{name}: has the permission change without limits.changes_per_minute, so it can use all \
             of thingspace.changes_per_minute"
        ));
    }
    if !caller.may_monitor_everywhere() && grants(caller, Permission::Monitor) {
        warnings.push(format!(
            "{name}: the permission monitor has no effect without accounts = [\"*\"]"
        ));
    }
    if caller.may_operate_everywhere() {
        warnings.push(format!(
            "{name}: may operate on all accounts, which includes pausing changes and results that \
             belong to no account"
        ));
    }
}

fn grants(caller: &CallerPolicy, permission: Permission) -> bool {
    caller.grants().iter().any(|grant| grant.permissions.contains(&permission))
}

fn check_sum(
    callers: &[Arc<CallerPolicy>],
    changes_per_minute: Option<u32>,
    warnings: &mut Vec<String>,
) {
    let limits = callers.iter().filter_map(|it| it.limits().get(CallerLimit::ChangesPerMinute));
    let sum: u64 = limits.map(|limit| u64::from(limit.get())).sum();
    if let Some(max) = changes_per_minute.filter(|max| sum > u64::from(*max)) {
        warnings.push(format!(
            "the changes_per_minute of all callers add up to {sum}, more than \
             thingspace.changes_per_minute ({max}): callers can delay each other's changes"
        ));
    }
}

fn describe(caller: &CallerPolicy) -> String {
    format!("caller {} (line {})", caller.name(), caller.line())
}
