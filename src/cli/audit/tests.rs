use super::*;

fn record(json: &str) -> ParsedRecord {
    serde_json::from_str(json).unwrap()
}

const RECORD: &str = r#"{"time":"2026-03-01T12:00:00.000007Z","id":"1","event":"call","replica":"g","caller":"fleet","account":"0000123456-00001","devices":7}"#;

#[test]
fn a_record_must_match_all_conditions() {
    let time = |text| Some(parse_time(text).unwrap());
    let fleet = || Some("fleet".to_owned());
    let other = || Some("other".to_owned());
    let filter = Filter::default();
    for (filter, expected) in [
        (Filter { caller: fleet(), ..Filter::default() }, true),
        (Filter { caller: fleet(), account: other(), ..Filter::default() }, false),
        (Filter { from: time("2026-03-01T12:00:00.000007Z"), ..Filter::default() }, true),
        (Filter { from: time("2026-03-01T13:00:00.000008+01:00"), ..Filter::default() }, false),
        (Filter { to: time("2026-03-01T12:00:00.000007Z"), ..Filter::default() }, false),
        (Filter { to: time("2026-03-02"), ..Filter::default() }, true),
        (filter, true),
    ] {
        assert_eq!(filter.matches(&record(RECORD)), expected, "{filter:?}");
    }
    let no_time = record("{}");
    assert!(!Filter { from: time("2026-03-01"), ..Filter::default() }.matches(&no_time));
}

#[test]
fn a_csv_has_all_columns_and_no_cell_that_a_spreadsheet_runs() {
    let mut bytes = Vec::new();
    let mut writer = RecordWriter::new(Format::Csv, &mut bytes).unwrap();
    writer.write(RECORD, &record(RECORD)).unwrap();
    for planted in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a,\"b\"\nc"] {
        let mut planted_record = record(RECORD);
        planted_record.insert("identity".into(), planted.into());
        writer.write("", &planted_record).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), FIELDS);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, field: &str| {
        let column = FIELDS.iter().position(|one| *one == field).unwrap();
        rows[row][column].to_owned()
    };
    assert_eq!(
        (cell(0, "devices"), cell(0, "caller"), cell(0, "code")),
        ("7".into(), "fleet".into(), String::new())
    );
    let planted: Vec<String> = (1..7).map(|row| cell(row, "identity")).collect();
    assert_eq!(planted, ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "a,\"b\"\nc"]);
}

#[test]
fn a_time_needs_a_date() {
    for text in ["yesterday", "12:00", "", "2026-13-01T00:00:00Z"] {
        assert!(parse_time(text).is_err(), "{text}");
    }
}
