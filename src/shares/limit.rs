//! A limit with a reserved part for each caller.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::domain::caller_name::CallerName;

/// A limit that callers share.
///
/// Half of it is reserved in equal parts, one for each caller. What a caller uses beyond its part counts
/// as common use, which the other half bounds. Permits are counted by caller, not marked as reserved or
/// common, so the parts can change while permits are held.
#[derive(Debug)]
pub struct SharedLimit {
    capacity: usize,
    /// Amount of the largest single request.
    largest: usize,
    state: Mutex<State>,
}

/// An amount of a [`SharedLimit`] that a caller holds until it is dropped.
#[derive(Debug)]
pub struct SharePermit {
    limit: Arc<SharedLimit>,
    caller: CallerName,
    amount: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Reserved part of each caller.
    reserved: usize,
    /// Amount that is not reserved.
    common: usize,
    /// Amount of all permits.
    used: usize,
    /// Amount of all permits beyond the reserved parts of their callers. More than `common` only after
    /// parts became smaller while permits were held.
    common_used: usize,
    callers: HashMap<CallerName, Usage>,
}

/// The use of one caller. A caller without a reserved part has an entry while it holds permits.
#[derive(Debug, Default)]
struct Usage {
    used: usize,
    has_part: bool,
}

// === impl SharedLimit ===

impl SharedLimit {
    /// Divides `capacity` among `callers`. The common part is at least `largest`, the amount of the largest
    /// single request: any caller can make such a request while the others use only their reserved parts.
    pub fn new(capacity: usize, largest: usize, callers: &[CallerName]) -> Self {
        let this = Self { capacity, largest, state: Mutex::default() };
        this.set_callers(callers);
        this
    }

    /// Takes an amount. `None` if the caller would exceed its reserved part and the common part.
    pub fn try_acquire(
        self: &Arc<Self>,
        caller: &CallerName,
        amount: usize,
    ) -> Option<SharePermit> {
        self.try_add(caller, amount).then(|| SharePermit {
            limit: Arc::clone(self),
            caller: caller.clone(),
            amount,
        })
    }

    /// Divides the limit anew.
    pub fn set_callers(&self, callers: &[CallerName]) {
        let mut state = self.state.lock();
        let spare = self.capacity.saturating_sub(self.largest);
        let count = callers.len().max(1);
        state.reserved = (self.capacity / 2).min(spare) / count;
        state.common = self.capacity - state.reserved * count;
        state.callers.retain(|_, usage| {
            usage.has_part = false;
            usage.used > 0
        });
        for caller in callers {
            state.callers.entry(caller.clone()).or_default().has_part = true;
        }
        let reserved = state.reserved;
        state.common_used =
            state.callers.values().map(|usage| usage.used - usage.within_part(reserved)).sum();
    }

    fn try_add(&self, caller: &CallerName, amount: usize) -> bool {
        let mut state = self.state.lock();
        let State { reserved, common, used, common_used, callers } = &mut *state;
        let (part, before) = match callers.get(caller) {
            Some(usage) => (usage.part(*reserved), usage.used),
            None => (0, 0),
        };
        let Some(after) = before.checked_add(amount) else {
            return false;
        };
        let beyond = after.saturating_sub(part) - before.saturating_sub(part);
        let is_within_common = beyond == 0 || beyond <= common.saturating_sub(*common_used);
        if !is_within_common || amount > self.capacity.saturating_sub(*used) {
            return false;
        }
        *used += amount;
        *common_used += beyond;
        match callers.get_mut(caller) {
            Some(usage) => usage.used = after,
            None if amount > 0 => {
                callers.insert(caller.clone(), Usage { used: after, has_part: false });
            }
            None => {}
        }
        true
    }

    fn release(&self, caller: &CallerName, amount: usize) {
        let mut state = self.state.lock();
        let State { reserved, used, common_used, callers, .. } = &mut *state;
        let Some(usage) = callers.get_mut(caller) else {
            return;
        };
        let part = usage.part(*reserved);
        let after = usage.used.saturating_sub(amount);
        *common_used -= usage.used.saturating_sub(part) - after.saturating_sub(part);
        *used -= usage.used - after;
        usage.used = after;
        if after == 0 && !usage.has_part {
            callers.remove(caller);
        }
    }

    /// Returns the amount of all permits.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.state.lock().used
    }
}

// === impl Usage ===

impl Usage {
    fn part(&self, reserved: usize) -> usize {
        if self.has_part { reserved } else { 0 }
    }

    fn within_part(&self, reserved: usize) -> usize {
        self.used.min(self.part(reserved))
    }
}

// === impl SharePermit ===

impl SharePermit {
    /// Returns the amount.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes a further amount. Returns false, and takes nothing, if it is not available.
    pub fn try_grow(&mut self, amount: usize) -> bool {
        let has_grown = self.limit.try_add(&self.caller, amount);
        if has_grown {
            self.amount += amount;
        }
        has_grown
    }
}

impl Drop for SharePermit {
    fn drop(&mut self) {
        self.limit.release(&self.caller, self.amount);
    }
}

#[cfg(test)]
mod tests;
