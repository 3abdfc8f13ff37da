//! The documents list all settings and scenarios of the sandbox.

use serde_json::Value;

use crate::support::cli;

fn document(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn the_scenarios_are_listed_as_in_sandbox_md_and_as_json() {
    let table = cli::run(&["sandbox", "scenarios"], &[]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(document("sandbox.md").contains(table.stdout.trim_end()));

    let json = cli::run(&["sandbox", "scenarios", "--json"], &[]).await;
    let scenarios: Value = serde_json::from_str(&json.stdout).unwrap();
    let scenarios = scenarios.as_array().unwrap();
    assert_eq!(scenarios.len() + 2, table.stdout.lines().count());
    let lost = scenarios.iter().find(|one| one["name"] == "lost").unwrap();
    assert_eq!(lost["identifiers"][0]["kind"], "iccid");
    assert_eq!(lost["identifiers"][0]["prefix"], "9994931");
    assert_eq!(lost["identifiers"][0]["serial_digits"], 13);
}

#[test]
fn sandbox_md_has_every_setting_of_the_sandbox_with_its_default() {
    let (settings, manual) = (document("settings.md"), document("sandbox.md"));
    let rows = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("| `sandbox."));
        rows.map(str::to_owned).collect()
    };
    let keys = |row: &String| -> Vec<String> {
        let cell = row.split('|').nth(1).unwrap_or_default().to_owned();
        let keys = cell.split('`').skip(1).step_by(2);
        keys.filter(|key| !key.ends_with("_file")).map(str::to_owned).collect()
    };
    let default = |row: &str| row.split('|').nth(2).unwrap_or_default().trim().to_owned();
    let of_manual = rows(&manual);
    for row in rows(&settings) {
        for key in keys(&row) {
            let mut found = of_manual.iter().filter(|one| keys(one).contains(&key));
            let found = found.next().unwrap_or_else(|| panic!("{key} is in no row"));
            let expected = default(&row);
            assert!(expected == "not set" || default(found) == expected, "{key}: {found}");
        }
    }
    let settings: Vec<String> = rows(&settings).iter().flat_map(keys).collect();
    for key in of_manual.iter().flat_map(keys) {
        assert!(settings.contains(&key), "{key} is no setting");
    }
}

#[test]
fn security_md_names_every_secret_of_the_settings() {
    let path = format!("{}/SECURITY.md", env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(path).unwrap();
    let settings = document("settings.md");
    let rows = settings.lines().filter(|line| line.contains(" Secret: "));
    let keys: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(keys.len() > 8, "{keys:?}");
    for key in keys.into_iter().filter(|key| !key.starts_with("sandbox.")) {
        assert!(manual.contains(&format!("`{key}`")), "{key}");
    }
}
