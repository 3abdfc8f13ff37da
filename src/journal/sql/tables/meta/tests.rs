use rusqlite::Connection;

use super::*;
use crate::journal::sqlite::schema;

fn insert(connection: &Connection, position: u64) {
    let sql = "INSERT INTO event (position, stream, kind, body) VALUES (?, 1, 0, x'')";
    connection.execute(sql, [position as i64]).unwrap();
}

#[test]
fn the_last_position_survives_its_event_and_is_never_reused() {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::initialize(&mut connection).unwrap();
    assert_eq!(kept_range(&connection).unwrap().last, 0);
    insert(&connection, 1);
    insert(&connection, 2);
    store(&connection, TRIMMED_POSITION, &2_u64.to_be_bytes()).unwrap();
    connection.execute("DELETE FROM event", []).unwrap();
    assert_eq!(kept_range(&connection).unwrap(), KeptRange { last: 2, trimmed: 2 });
    skip_to(&connection, 41).unwrap();
    assert_eq!(kept_range(&connection).unwrap().last, 41);
}
