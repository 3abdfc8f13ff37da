use super::*;

fn pool(bytes: usize, max_message: usize) -> ByteBudgetPool {
    ByteBudgetPool::new(bytes, max_message, &CallerShares::default())
}

const MIB: usize = 1024 * 1024;

#[test]
fn small_messages_have_their_own_pool_and_total_bytes_are_bounded() {
    let (pool, caller) = (pool(32 * MIB, 16 * MIB), CallerName::anonymous());
    let pool = pool.of(&caller);
    let mut large = pool.budget(16 * MIB, false).unwrap();
    large.grow_to(16 * MIB).unwrap();
    assert!(pool.budget(2 * MIB, false).unwrap().grow_to(1).is_err());
    assert!(pool.budget(10, true).unwrap().grow_to(1).is_err());
    let mut small = Vec::new();
    for _ in 0..16 {
        let mut one = pool.budget(MIB, false).unwrap();
        one.grow_to(MIB).unwrap();
        small.push(one);
    }
    assert!(pool.budget(1, false).unwrap().grow_to(1).is_err());
}

#[test]
fn a_message_that_holds_bytes_does_not_wait_for_more() {
    let (pool, caller) = (pool(MIB, MIB), CallerName::anonymous());
    let pool = pool.of(&caller);
    let (mut one, mut other) = (pool.budget(MIB, false).unwrap(), pool.budget(MIB, false).unwrap());
    one.grow_to(MIB - 10).unwrap();
    other.grow_to(10).unwrap();
    assert!(other.grow_to(11).is_err());
    drop(other);
    one.grow_to(MIB).unwrap();
}

#[test]
fn a_caller_that_takes_all_bytes_leaves_the_others_their_part_of_the_small_messages() {
    let shares = CallerShares::default();
    let [greedy, other] = ["greedy", "other"].map(|name| CallerName::parse(name).unwrap());
    shares.set_callers([greedy.clone(), other.clone()]);
    let pool = ByteBudgetPool::new(32 * MIB, 16 * MIB, &shares);
    let mut held = Vec::new();
    loop {
        let mut budget = pool.of(&greedy).budget(MIB, false).unwrap();
        match budget.grow_to(MIB) {
            Ok(()) => held.push(budget),
            Err(_) => break,
        }
    }
    assert_eq!(held.len(), 12);
    let mut budget = pool.of(&other).budget(MIB, false).unwrap();
    budget.grow_to(MIB).unwrap();
    // A large message may need the whole space for them, so no part of it is reserved.
    let mut large = pool.of(&greedy).budget(16 * MIB, false).unwrap();
    large.grow_to(16 * MIB).unwrap();
    assert!(pool.of(&other).budget(2 * MIB, false).unwrap().grow_to(1).is_err());
}
