//! Command-line flags.

use crate::{
    kind::Syntax,
    table::{Setting, Table},
};

/// A command-line flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The key, which is also the long name of the flag.
    pub key: &'static str,
    /// The first sentence of the documentation, the default and the environment variable.
    pub help: String,
    /// Placeholder of the value.
    pub placeholder: &'static str,
    /// True if the flag without a value means `true`.
    pub is_switch: bool,
}

/// Every flag, in the order of the table. For a secret, only the key of its file has a flag.
pub fn flags(table: &Table) -> Vec<Flag> {
    let flags = |setting: &'static Setting| {
        let own = Some(setting.key).filter(|_| setting.has_own_flag());
        let keys = [own, setting.file_key].into_iter().flatten();
        keys.map(|key| build_flag(table, setting, key))
    };
    table.settings().flat_map(flags).collect()
}

fn build_flag(table: &Table, setting: &Setting, key: &'static str) -> Flag {
    let is_file = setting.file_key == Some(key);
    let values = (setting.values)();
    let first_sentence = setting.doc.split_inclusive(". ").next();
    let mut help = first_sentence.unwrap_or_default().trim().to_owned();
    if is_file {
        help.insert_str(0, "File that contains this secret: ");
    }
    if let Some(default) = setting.default.filter(|text| !text.is_empty()) {
        help.push_str(&format!(" [default: {default}]"));
    }
    help.push_str(&format!(" [env: {}]", table.env_name(key)));
    Flag {
        key,
        help,
        placeholder: if is_file { "PATH" } else { values.placeholder },
        is_switch: values.syntax == Syntax::Switch,
    }
}
