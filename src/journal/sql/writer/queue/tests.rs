use super::*;
use crate::journal::sql::writer::command::CommandKind;

fn command(kind: CommandKind, rows: usize) -> Command {
    Command { kind, ..Command::modify_tables(rows, |_, _| Ok(())).0 }
}

#[tokio::test]
async fn callbacks_overtake_large_commands_and_do_not_starve_them() {
    let (lanes, mut queue) = Queue::new();
    for _ in 0..10_000 {
        let callback = command(CommandKind::Callback, 1);
        lanes.callbacks.try_send(callback).ok().unwrap();
    }
    for _ in 0..2 {
        let large = command(CommandKind::Other, ROWS_PER_COMMIT + 1);
        lanes.other.try_send(large).ok().unwrap();
    }
    let mut commits = Vec::new();
    for _ in 0..22 {
        let first = queue.next(false).await.unwrap();
        commits.push(queue.collect_batch(first).len());
    }
    // The commit that finds the large command, and eight more.
    let mut expected = vec![513; 9];
    expected.push(1);
    assert_eq!(commits.get(..10), Some(expected.as_slice()));
    assert_eq!(commits.get(10..20), Some(expected.as_slice()));
    // The rest of the 10,000 callbacks.
    let left = 10_000 - 18 * 513;
    assert_eq!(commits.get(20..), Some([513, left - 513].as_slice()));
    assert_eq!(commits.iter().filter(|size| **size == 1).count(), 2);
}

#[tokio::test]
async fn a_response_of_thingspace_overtakes_a_large_command() {
    let (lanes, mut queue) = Queue::new();
    let large = command(CommandKind::Other, ROWS_PER_COMMIT + 1);
    lanes.other.try_send(command(CommandKind::Other, 1)).ok().unwrap();
    lanes.other.try_send(large).ok().unwrap();
    let first = queue.next(false).await.unwrap();
    assert_eq!(queue.collect_batch(first).len(), 1, "the large command waits");
    for _ in 0..2 {
        lanes.reserved.try_send(command(CommandKind::Other, 1)).ok().unwrap();
    }
    let first = queue.next(false).await.unwrap();
    assert_eq!(queue.collect_batch(first).len(), 2, "both responses");
    let large = queue.next(false).await.unwrap();
    assert!(large.rows > ROWS_PER_COMMIT);
}
