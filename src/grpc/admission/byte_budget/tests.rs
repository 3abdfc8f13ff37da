use super::*;

const MIB: usize = 1024 * 1024;

#[test]
fn small_messages_have_their_own_pool_and_total_bytes_are_bounded() {
    let pool = ByteBudgetPool::new(32 * MIB, 16 * MIB);
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
    let pool = ByteBudgetPool::new(MIB, MIB);
    let (mut one, mut other) = (pool.budget(MIB, false).unwrap(), pool.budget(MIB, false).unwrap());
    one.grow_to(MIB - 10).unwrap();
    other.grow_to(10).unwrap();
    assert!(other.grow_to(11).is_err());
    drop(other);
    one.grow_to(MIB).unwrap();
}
