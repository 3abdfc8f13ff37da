//! JSON Schema of the policy file, for editors.

use serde_json::{Map, Value, json};

use crate::{
    access::policy::{
        caller::Permission,
        file::{MAX_ACCOUNTS, MAX_CALLERS, MAX_GRANTS, MAX_IDENTITIES, operation_names},
        limits::CallerLimit,
        pattern::{MAX_ACCOUNT_BYTES, MAX_IDENTITY_BYTES},
    },
    domain::caller_name::CallerName,
};

/// The schema, as indented JSON. It accepts every valid file. It does not check that names are unique,
/// nor the text of an identity after its scheme.
pub fn json_schema() -> String {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Policy file of thingspace-gateway",
        "type": "object",
        "additionalProperties": false,
        "required": ["caller"],
        "properties": {
            "caller": { "type": "array", "minItems": 1, "maxItems": MAX_CALLERS, "items": caller() },
        },
    });
    format!("{schema:#}")
}

fn caller() -> Value {
    json!({
        "description": "A caller. The first caller one of whose identities matches a client is its caller.",
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "identities"],
        "properties": {
            "name": {
                "description": "Unique name, which logs, metrics and the audit log show.",
                "type": "string",
                "pattern": format!("^[a-z0-9._-]{{1,{}}}$", CallerName::MAX_LEN),
                "not": { "enum": [CallerName::anonymous().as_str(), CallerName::local().as_str()] },
            },
            "identities": {
                "description": "Patterns of identity names. `*` matches one or more characters except `/`, and in `dns:` except `.`. `/**` at the end of a spiffe:// pattern matches one or more path segments.",
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_IDENTITIES,
                "items": {
                    "type": "string",
                    "maxLength": MAX_IDENTITY_BYTES,
                    "pattern": "^(spiffe://|dns:|subject:|jwt:|mesh:).",
                },
            },
            "allow": { "type": "array", "maxItems": MAX_GRANTS, "items": grant() },
            "limits": limits(),
        },
    })
}

fn grant() -> Value {
    let permissions = Permission::ALL.map(Permission::as_str);
    let operations: Vec<&str> = operation_names().collect();
    json!({
        "description": "Permissions on accounts.",
        "type": "object",
        "additionalProperties": false,
        "required": ["permissions", "accounts"],
        "properties": {
            "permissions": {
                "description": "What the caller may do.",
                "type": "array",
                "minItems": 1,
                "maxItems": Permission::ALL.len(),
                "items": { "enum": permissions },
            },
            "accounts": {
                "description": "Accounts. `*` matches any number of characters.",
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_ACCOUNTS,
                "items": {
                    "type": "string",
                    "pattern": format!("^[A-Za-z0-9*-]{{1,{MAX_ACCOUNT_BYTES}}}$"),
                },
            },
            "operations": {
                "description": "Operations that the permission `change` applies to. Not set: all.",
                "type": "array",
                "minItems": 1,
                "maxItems": operations.len(),
                "items": { "enum": operations },
            },
        },
        "if": { "required": ["operations"] },
        "then": { "properties": { "permissions": { "contains": { "const": "change" } } } },
    })
}

fn limits() -> Value {
    let limits = CallerLimit::ALL.into_iter().map(|limit| {
        let schema = json!({
            "description": description(limit),
            "type": "integer",
            "minimum": 1,
            "maximum": limit.max(),
        });
        (limit.as_str().to_owned(), schema)
    });
    json!({
        "description": "Limits of the caller on each replica. Not set: no limit but those of all callers.",
        "type": "object",
        "additionalProperties": false,
        "properties": limits.collect::<Map<_, _>>(),
    })
}

fn description(limit: CallerLimit) -> &'static str {
    match limit {
        CallerLimit::ChangesPerMinute => "Change calls in a minute.",
        CallerLimit::DevicesPerMinute => "Devices of change calls in a minute.",
        CallerLimit::Streams => "Open streams: watches and reflection.",
        CallerLimit::InflightCalls => "Change calls and reads in flight.",
    }
}
