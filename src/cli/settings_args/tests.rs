use super::*;

#[test]
fn the_environment_reaches_the_settings() {
    let command = SettingsArgs::augment_args(Command::new("check"));
    let matches = command.get_matches_from(["check"]);
    let environment = [("TSGW_SANDBOX__SEED".into(), "7".into())];
    let settings = SettingsArgs::new(&matches, environment);
    assert_eq!(settings.load().unwrap().config.sandbox.seed, 7);
}
