//! A JSON Schema of the settings file, from the table: for editors, and for the chart's values.

use serde_json::{Map, Value, json};

use super::settings::GROUPS;
use super::table::{Setting, SettingGroup, paragraph};

/// The schema, as readable JSON.
pub fn json_schema() -> String {
    let groups: Map<_, _> = GROUPS
        .iter()
        .map(|group| (group.name.to_owned(), group_schema(group)))
        .collect();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of thingspace-gateway",
        "type": "object",
        "additionalProperties": false,
        "properties": groups,
    });
    format!("{schema:#}")
}

fn group_schema(group: &SettingGroup) -> Value {
    let settings: Map<_, _> = group.settings.iter().flat_map(setting_schemas).collect();
    json!({
        "description": paragraph(group.doc),
        "type": "object",
        "additionalProperties": false,
        "properties": settings,
    })
}

/// A setting, and a secret's twin.
fn setting_schemas(setting: &Setting) -> impl Iterator<Item = (String, Value)> + use<> {
    let mut schema = setting.kind.schema();
    let text = format!(
        "{} Valid values: {}.",
        setting.text(),
        setting.kind.accepts()
    );
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), text.into());
    }
    let twin = setting.file_key.map(|twin| {
        let text = format!("File that contains `{}`.", setting.key);
        let schema = json!({ "type": "string", "description": text });
        (field_name(twin), schema)
    });
    std::iter::once((field_name(setting.key), schema)).chain(twin)
}

/// What stands behind the dot.
fn field_name(key: &str) -> String {
    let (_, name) = key.split_once('.').unwrap_or(("", key));
    name.to_owned()
}
