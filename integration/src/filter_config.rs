//! The filter's configuration as documents: a table of its keys, and a JSON Schema.
//!
//! In: the tables that the filter itself reads by (`core/src/config`). Out: Markdown rows and a schema; what a schema
//! cannot say is in its top description. Defaults are what the places of an empty configuration hold.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use tally_core::api::Api;
use tally_core::change::rewrite::MAX_WEIGHT;
use tally_core::config::{Config, Key, Kind, OnFailure};

/// A table of these keys.
#[must_use]
pub fn table(keys: &[Key]) -> String {
    let mut text = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for Key { name, kind, meaning } in keys {
        let default = match default(kind) {
            None => "none".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let _ = writeln!(text, "| `{name}` | {} | {default} | {} |", kind.expected(), linked(meaning));
    }
    text
}

/// A schema of an object with these keys.
#[must_use]
pub fn object(keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    for Key { name, kind, meaning } in keys {
        let mut schema = shape(kind);
        schema.insert("description".to_owned(), json!(meaning));
        if let Some(value) = default(kind) {
            schema.insert("default".to_owned(), value);
        }
        properties.insert((*name).to_owned(), Value::Object(schema));
    }
    fields(json!({ "type": "object", "additionalProperties": false, "properties": properties }))
}

/// The whole schema, out of the schema of its keys.
#[must_use]
pub fn schema(keys: Map<String, Value>) -> Value {
    let mut schema = keys;
    let about = "Configuration of the Tally filter: `configuration` of Envoy's PluginConfig, `pluginConfig` of Istio's \
                 WasmPlugin. What is not said here: a model has one entry in model_rewrites.";
    schema.extend(fields(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tally filter",
        "description": about,
        "allOf": [
            {
                "if": { "properties": { "hash_tenant": { "const": true } }, "required": ["hash_tenant"] },
                "then": { "required": ["tenant_header", "tenant_key"] }
            },
            { "not": { "required": ["admission", "route_header"] } }
        ]
    })));
    Value::Object(schema)
}

/// Files that a meaning names, as links out of a document in docs.
fn linked(meaning: &str) -> String {
    let link = |word: &str| match word.strip_suffix('.') {
        Some(path) if path.starts_with("envoy/") => format!("[{path}](../{path})."),
        Some(path) if path.starts_with("docs/") => {
            let file = path.trim_start_matches("docs/");
            format!("[{file}]({file}).")
        }
        _ => word.to_owned(),
    };
    meaning.split(' ').map(link).collect::<Vec<_>>().join(" ")
}

/// What an empty configuration has there; `None`: nothing.
fn default(kind: &Kind) -> Option<Value> {
    let of = &mut Config::default();
    match kind {
        Kind::Flag(place) => Some(json!(*place(of))),
        Kind::Whole(.., place) => Some(json!(*place(of))),
        Kind::Header(place) | Kind::Text(_, place) => Some(json!(*place(of))).filter(|text| text != ""),
        Kind::Headers(_, place) | Kind::Names(place) => Some(json!(*place(of))).filter(|names| names != &json!([])),
        Kind::OnFailure(place) => Some(json!(match *place(of) {
            OnFailure::Open => "open",
            OnFailure::Closed => "closed",
        })),
        Kind::OneOf([first, second], place) => Some(json!(if *place(of) { second } else { first })),
        Kind::Profile(_)
        | Kind::Secret(_)
        | Kind::Paths(_)
        | Kind::Rewrites(_)
        | Kind::Priorities(..)
        | Kind::Admission(_) => None,
    }
}

/// The part of a key's schema that says what may stand there.
fn shape(kind: &Kind) -> Map<String, Value> {
    let header = json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" });
    fields(match kind {
        Kind::Flag(_) => json!({ "type": "boolean" }),
        Kind::Whole(least, most, _) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Header(_) => header,
        Kind::Headers(most, _) => json!({ "type": "array", "items": header, "maxItems": most }),
        Kind::Names(_) => json!({ "type": "array", "items": name() }),
        Kind::Text(most, _) => json!({ "type": "string", "pattern": format!("^[!-~]{{1,{most}}}$") }),
        Kind::Secret(_) => json!({ "type": "string", "pattern": "^[0-9A-Fa-f]{32}$" }),
        Kind::Paths(_) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^/" },
            "additionalProperties": { "enum": Api::ALL.map(Api::name) }
        }),
        Kind::Rewrites(_) => rewrites(),
        Kind::Priorities(most, _) => json!({
            "type": "object",
            "additionalProperties": { "type": "integer", "minimum": -i64::from(*most), "maximum": most }
        }),
        Kind::OnFailure(_) => json!({ "enum": ["open", "closed"] }),
        Kind::OneOf(names, _) => json!({ "enum": names }),
        Kind::Profile(_) => {
            let names = json!({ "enum": ["llm_d_epp", "gen_ai"] });
            json!({ "anyOf": [names, { "type": "array", "items": names }] })
        }
        Kind::Admission(keys) => return object(keys),
    })
}

fn rewrites() -> Value {
    let target = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["model"],
        "properties": {
            "model": name(),
            "weight": { "type": "integer", "minimum": 0, "maximum": MAX_WEIGHT, "default": 1 }
        }
    });
    let chosen = json!({ "not": { "required": ["weight"], "properties": { "weight": { "const": 0 } } } });
    let rewrite = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["model", "targets"],
        "properties": { "model": name(), "targets": { "type": "array", "items": target, "contains": chosen } }
    });
    json!({ "type": "array", "items": rewrite })
}

fn name() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}
