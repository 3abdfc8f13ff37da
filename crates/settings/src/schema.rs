//! JSON Schema of the settings file, for editors and Helm charts.

use serde_json::{Map, Value, json};

use crate::table::{Setting, SettingGroup, Table, field_name};

/// The schema, as indented JSON.
pub fn json_schema(table: &Table, title: &str) -> String {
    let groups: Map<_, _> =
        table.groups.iter().map(|group| (group.name.to_owned(), group_schema(group))).collect();
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "properties": groups,
    });
    format!("{schema:#}")
}

fn group_schema(group: &SettingGroup) -> Value {
    let settings: Map<_, _> = group.settings.iter().flat_map(setting_schemas).collect();
    json!({
        "description": group.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": settings,
    })
}

/// The schema of a setting and, for a secret, of the key that names its file.
fn setting_schemas(setting: &Setting) -> impl Iterator<Item = (String, Value)> + use<> {
    let values = (setting.values)();
    let mut schema = values.schema;
    let description = format!("{} Valid values: {}.", setting.doc, values.accepts);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), description.into());
    }
    let file = setting.file_key.map(|file_key| {
        let description = format!("File that contains `{}`.", setting.key);
        let schema = json!({ "type": "string", "description": description });
        (field_name(file_key).to_owned(), schema)
    });
    std::iter::once((field_name(setting.key).to_owned(), schema)).chain(file)
}
