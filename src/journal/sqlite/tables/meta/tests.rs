use super::*;
use crate::journal::sqlite::tables::schema;

fn append(connection: &Connection) -> i64 {
    let mut insert = connection.prepare("INSERT INTO log_entry (time) VALUES (0)").unwrap();
    insert.insert([]).unwrap()
}

#[test]
fn the_last_position_survives_its_entry_and_is_never_reused() {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::initialize(&mut connection).unwrap();
    assert_eq!(kept_range(&connection).unwrap().last, 0);
    assert_eq!([append(&connection), append(&connection)], [1, 2]);
    connection.execute("DELETE FROM log_entry", []).unwrap();
    assert_eq!(kept_range(&connection).unwrap().last, 2);
    skip_to(&connection, 41).unwrap();
    assert_eq!(kept_range(&connection).unwrap().last, 41);
    assert_eq!(append(&connection), 42);
}
