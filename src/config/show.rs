//! The effective settings as a settings file.

use std::fmt::Write as _;

use super::check::Mode;
use super::error::{SettingOrigin, one_line};
use super::settings::{Config, GROUPS};
use super::table::EffectiveSetting;

/// The settings that this mode would run with, as TOML: a comment tells where each came from, and
/// secrets are hidden. Save for the hidden ones it can be loaded again.
pub fn render_toml(config: &Config, mode: Mode) -> String {
    let mut config = config.clone();
    config.apply_mode_defaults(mode);
    let shown = config.effective_settings();
    let mut text = String::new();
    for group in GROUPS {
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{gap}[{}]", group.name);
        for setting in &shown {
            if let Some((name, field)) = setting.key.split_once('.')
                && name == group.name
            {
                let _ = writeln!(text, "{}", line(&config, setting, field));
            }
        }
    }
    text
}

fn line(config: &Config, setting: &EffectiveSetting, field: &str) -> String {
    let Some(value) = &setting.toml else {
        return format!("# {field} is not set");
    };
    let origin = match config.origin(setting.key) {
        None | Some(SettingOrigin::Default) => "default".to_owned(),
        Some(origin) => format!("from {}", one_line(&origin.to_string())),
    };
    format!("{field} = {value} # {origin}")
}
