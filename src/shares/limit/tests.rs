use proptest::prelude::*;

use super::*;

fn name(index: usize) -> CallerName {
    CallerName::parse(&format!("caller-{index}")).unwrap()
}

fn names(count: usize) -> Vec<CallerName> {
    (0..count).map(name).collect()
}

fn limit(capacity: usize, largest: usize, callers: usize) -> Arc<SharedLimit> {
    Arc::new(SharedLimit::new(capacity, largest, &names(callers)))
}

/// Takes permits of 1 until none is left.
fn take_all(limit: &Arc<SharedLimit>, caller: &CallerName) -> Vec<SharePermit> {
    std::iter::from_fn(|| limit.try_acquire(caller, 1)).collect()
}

#[test]
fn a_single_caller_has_the_whole_limit() {
    for capacity in [1, 2, 3, 1_000] {
        let limit = limit(capacity, 1, 1);
        let permits = take_all(&limit, &name(0));
        assert_eq!(permits.len(), capacity);
        drop(permits);
        assert_eq!((limit.used(), take_all(&limit, &name(0)).len()), (0, capacity));
    }
}

#[test]
fn a_caller_that_takes_all_it_can_leaves_the_reserved_parts_of_the_others() {
    let limit = limit(100, 1, 5);
    let greedy = take_all(&limit, &name(0));
    // A tenth of its own and the common half.
    assert_eq!(greedy.len(), 60);
    let others: Vec<_> = (1..5).map(|index| take_all(&limit, &name(index))).collect();
    assert!(others.iter().all(|permits| permits.len() == 10));
    assert_eq!(limit.used(), 100);
    // A permit that a caller releases returns to its reserved part, unless it was common.
    drop(others);
    assert!(limit.try_acquire(&name(0), 1).is_none());
    drop(greedy);
    assert_eq!(take_all(&limit, &name(4)).len(), 60);
}

#[test]
fn a_caller_without_a_part_uses_the_common_part() {
    let limit = limit(100, 1, 5);
    let permits = take_all(&limit, &CallerName::anonymous());
    assert_eq!(permits.len(), 50);
    assert_eq!(take_all(&limit, &name(0)).len(), 10);
}

#[test]
fn the_common_part_admits_the_largest_request() {
    let tight = limit(16, 16, 4);
    assert!(tight.try_acquire(&name(3), 16).is_some());
    let limit = limit(20, 16, 4);
    let parts: Vec<_> = (0..3).map(|index| limit.try_acquire(&name(index), 1).unwrap()).collect();
    assert!(limit.try_acquire(&name(3), 17).is_some());
    assert_eq!(parts.len(), 3);
    assert!(limit.try_acquire(&name(3), 18).is_none());
}

#[test]
fn a_permit_grows_within_the_limit() {
    let limit = limit(100, 1, 2);
    let mut permit = limit.try_acquire(&name(0), 0).unwrap();
    assert!(permit.try_grow(75) && !permit.try_grow(1) && !permit.try_grow(usize::MAX));
    assert_eq!((permit.amount(), limit.used()), (75, 75));
    drop(permit);
    assert_eq!(limit.used(), 0);
}

#[test]
fn new_callers_wait_for_permits_that_are_held_and_the_total_stays_bounded() {
    let limit = limit(100, 1, 1);
    let mut held = take_all(&limit, &name(0));
    assert_eq!(held.len(), 100);
    limit.set_callers(&names(2));
    assert!(limit.try_acquire(&name(1), 1).is_none());
    held.truncate(90);
    // Beyond its part and the common one, the old caller gets nothing; the new one gets its part.
    assert!(limit.try_acquire(&name(0), 1).is_none());
    assert_eq!(take_all(&limit, &name(1)).len(), 10);
    held.truncate(70);
    assert_eq!(take_all(&limit, &name(1)).len(), 30);
    // A removed caller keeps its permits, which count as common.
    limit.set_callers(&[name(1)]);
    let others = take_all(&limit, &name(1));
    assert_eq!((held.len(), others.len()), (70, 30));
    drop((held, others));
    assert_eq!(limit.used(), 0);
    assert_eq!(limit.state.lock().callers.len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Take { caller: usize, amount: usize },
    Grow { permit: usize, amount: usize },
    Release { permit: usize },
    SetCallers(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_usize, 0..30_usize).prop_map(|(caller, amount)| Step::Take { caller, amount }),
        2 => (0..20_usize, 0..30_usize).prop_map(|(permit, amount)| Step::Grow { permit, amount }),
        3 => (0..20_usize).prop_map(|permit| Step::Release { permit }),
        1 => (0..6_usize).prop_map(Step::SetCallers),
    ]
}

proptest! {
    #[test]
    fn totals_are_exact_and_a_reserved_part_is_always_available(
        capacity in 1..120_usize,
        largest in 0..120_usize,
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let limit = limit(capacity, largest, 3);
        let mut held: Vec<SharePermit> = Vec::new();
        let (mut callers, mut is_divided_anew) = (3, false);
        let used_by = |held: &[SharePermit], caller: usize| -> usize {
            held.iter().filter(|it| it.caller == name(caller)).map(|it| it.amount).sum()
        };
        for step in steps {
            match step {
                Step::Take { caller, amount } => {
                    let part = limit.state.lock().reserved;
                    let fits = caller < callers && used_by(&held, caller) + amount <= part;
                    let permit = limit.try_acquire(&name(caller), amount);
                    prop_assert!(permit.is_some() || !fits || is_divided_anew);
                    held.extend(permit);
                }
                Step::Grow { permit, amount } => {
                    if let Some(permit) = held.get_mut(permit) {
                        permit.try_grow(amount);
                    }
                }
                Step::Release { permit } => {
                    if permit < held.len() {
                        held.swap_remove(permit);
                    }
                }
                Step::SetCallers(count) => {
                    callers = count;
                    is_divided_anew = true;
                    limit.set_callers(&names(count));
                }
            }
            let total: usize = held.iter().map(|permit| permit.amount).sum();
            prop_assert!(total <= capacity && limit.used() == total);
            let state = limit.state.lock();
            let beyond = |(caller, usage): (&CallerName, &Usage)| {
                let is_caller = (0..callers).any(|index| name(index) == *caller);
                assert_eq!(usage.has_part, is_caller);
                usage.used - usage.within_part(state.reserved)
            };
            prop_assert_eq!(state.callers.iter().map(beyond).sum::<usize>(), state.common_used);
            prop_assert!(state.common >= largest.min(capacity));
        }
        drop(held);
        prop_assert_eq!(limit.used(), 0);
        prop_assert_eq!(limit.state.lock().common_used, 0);
        prop_assert_eq!(limit.state.lock().callers.len(), callers);
    }
}
