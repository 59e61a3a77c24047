//! The schema of the filter's configuration and the filter's own reader are of one mind; every example is a good one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};
use tally_core::config::{ADMISSION_KEYS, Config, KEYS};
use tally_integration::tools::root;

fn schema() -> Result<Validator> {
    let text = fs::read_to_string(root().join("envoy/tally.schema.json"))?;
    let schema: Value = serde_json::from_str(&text)?;
    ensure!(jsonschema::draft202012::meta::is_valid(&schema), "it is no schema of draft 2020-12");
    Ok(jsonschema::validator_for(&schema)?)
}

fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, endings, found)?;
        } else if path.extension().is_some_and(|ending| endings.iter().any(|one| ending == *one)) {
            found.push(path);
        }
    }
    Ok(())
}

/// Configurations in a YAML document: what stands under `pluginConfig`, and texts under Envoy's `configuration`.
fn configurations(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("pluginConfig").cloned());
            let text = object.get("configuration").and_then(|text| text.get("value")).and_then(Value::as_str);
            found.extend(text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text))));
            object.values().for_each(|inner| configurations(inner, found));
        }
        Value::Array(values) => values.iter().for_each(|inner| configurations(inner, found)),
        _ => {}
    }
}

/// JSON blocks of a Markdown file.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// Objects in the middle of a Markdown file's sentences.
fn inline(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|code| code.starts_with("{\""))
}

/// Configurations in the code of tests: raw strings with an object.
fn raw_strings(text: &str) -> impl Iterator<Item = &str> {
    let end = |rest: &str| rest.find("}\"#").map(|end| end + 1);
    text.split("config(r#\"").skip(1).filter_map(move |rest| rest.get(..end(rest)?))
}

#[test]
fn every_example_in_the_project_is_accepted_by_the_schema_and_by_the_filter() -> Result<()> {
    let schema = schema()?;
    let mut examples: Vec<(PathBuf, Value)> = Vec::new();
    let mut paths = Vec::new();
    for folder in ["envoy", "deploy/manifests"] {
        files(&root().join(folder), &["yaml"], &mut paths)?;
    }
    for path in &paths {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path)?)?;
        let mut found = Vec::new();
        documents.iter().for_each(|document| configurations(document, &mut found));
        examples.extend(found.into_iter().map(|value| (path.clone(), value)));
    }
    let in_yaml = examples.len();
    // The bootstrap and Istio's three ways.
    ensure!(in_yaml >= 4, "{examples:?}");
    for name in ["README.md", "docs/CONFIG.md", "docs/CHANGES.md", "docs/ADMISSION.md", "docs/METRICS.md"] {
        let text = fs::read_to_string(root().join(name))?;
        // CHANGES.md shows what is put into requests, too.
        let sentences = inline(&text).filter(|_| name != "docs/CHANGES.md");
        for block in blocks(&text).chain(sentences) {
            examples.push((name.into(), serde_json::from_str(block).with_context(|| format!("{name}: {block}"))?));
        }
    }
    let in_docs = examples.len() - in_yaml;
    ensure!(in_docs >= 10, "{in_docs} blocks of JSON");
    let mut sources = Vec::new();
    files(&root().join("integration/tests"), &["rs"], &mut sources)?;
    for path in &sources {
        for text in raw_strings(&fs::read_to_string(path)?) {
            examples.push((path.clone(), serde_json::from_str(text).with_context(|| format!("{path:?}: {text}"))?));
        }
    }
    ensure!(examples.len() > in_yaml + in_docs, "no test has a configuration");
    for (place, example) in examples {
        Config::parse(example.to_string().as_bytes()).with_context(|| format!("{place:?}: {example}"))?;
        schema.validate(&example).map_err(|error| anyhow::anyhow!("{place:?}: {example}: {error}"))?;
    }
    Ok(())
}

/// What is tried under every key.
fn values() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(true),
        json!(false),
        json!(""),
        json!("x"),
        json!("X-Header"),
        json!("a b"),
        json!("é"),
        json!("line\nend"),
        json!("open"),
        json!("closed"),
        json!("llm_d_epp"),
        json!("gen_ai"),
        json!("seed"),
        json!("v15"),
        json!("counters"),
        json!("envoy"),
        json!("0123456789abcdefABCDEF0123456789"),
        json!("0123456789abcdefABCDEF012345678g"),
        json!("0".repeat(31)),
        json!("0".repeat(33)),
        json!("a".repeat(120)),
        json!("a".repeat(121)),
        json!([]),
        json!(["x"]),
        json!(["x", "y"]),
        json!([""]),
        json!(["a b"]),
        json!([1]),
        json!([["x"]]),
        json!(vec!["h"; 8]),
        json!(vec!["h"; 9]),
        json!(["llm_d_epp"]),
        json!(["gen_ai", "llm_d_epp"]),
        json!(["gen_ai", "gen_ai"]),
        json!(["x", null]),
        json!({}),
        json!({ "/x": "chat" }),
        json!({ "/x": "other", "/y": "generate" }),
        json!({ "x": "chat" }),
        json!({ "/x": "chats" }),
        json!({ "/x": 1 }),
        json!({ "a": 1 }),
        json!({ "a": 1_000_000, "b": -1_000_000 }),
        json!({ "a": 1_000_001 }),
        json!({ "a": -1_000_001 }),
        json!({ "a": 2.0 }),
        json!({ "a": 2.5 }),
        json!([{}]),
        json!([{ "model": "a" }]),
        json!([{ "model": "a", "targets": [] }]),
        json!([{ "model": "a", "targets": [{ "model": "b" }] }]),
        json!([{ "model": "a", "targets": [{ "model": "b" }], "weight": 1 }]),
        json!([{ "model": "", "targets": [{ "model": "b" }] }]),
        json!([{ "model": "a", "targets": [{ "model": "" }] }]),
        json!([{ "model": "a", "targets": [{ "model": "b", "wieght": 1 }] }]),
        json!([{ "model": "a", "targets": [{ "model": "b", "weight": "1" }] }]),
    ];
    let numbers = [0_i64, 1, -1, 9, 10, 1_000, 1_023, 1_024, 10_000, 10_001, 60_000, 60_001];
    let large = [3_600_000_i64, 3_600_001, 16_777_216, 16_777_217, 4_294_967_296, i64::MAX];
    values.extend(numbers.into_iter().chain(large).map(Value::from));
    values.extend([1.5, 100.0, -100.0, 1e3, 1e300, 2.5e-1].map(Value::from));
    for weight in [json!(0), json!(1), json!(3.0), json!(0.5), json!(-1), json!(1_000_000), json!(1_000_001)] {
        values.push(json!([{ "model": "a", "targets": [{ "model": "b", "weight": weight }] }]));
        values.push(json!([{ "model": "a", "targets": [{ "model": "b", "weight": weight }, { "model": "c" }] }]));
    }
    values
}

#[test]
fn the_schema_accepts_what_the_filter_accepts_and_nothing_else() -> Result<()> {
    let schema = schema()?;
    let (mut good, mut bad) = (0, 0);
    let mut agree = |configuration: Value| -> Result<()> {
        let read = Config::parse(configuration.to_string().as_bytes());
        let is_valid = schema.is_valid(&configuration);
        ensure!(read.is_ok() == is_valid, "{configuration}: the filter says {read:?}, the schema {is_valid}");
        *(if is_valid { &mut good } else { &mut bad }) += 1;
        Ok(())
    };
    for value in values() {
        for key in KEYS {
            agree(json!({ key.name: value }))?;
            // Beside what other keys ask for.
            let beside = json!({ "tenant_header": "t", "tenant_key": "0".repeat(32), key.name: value });
            agree(beside)?;
        }
        for key in ADMISSION_KEYS {
            agree(json!({ "admission": { key.name: value } }))?;
        }
        agree(json!({ "unknown": value }))?;
        agree(json!({ "admission": { "unknown": value } }))?;
        agree(value)?;
    }
    agree(json!({ "hash_tenant": true, "tenant_header": "t" }))?;
    agree(json!({ "hash_tenant": true, "tenant_key": "0".repeat(32) }))?;
    agree(json!({ "hash_tenant": true, "tenant_header": "t", "tenant_key": "0".repeat(32) }))?;
    agree(json!({ "admission": {}, "route_header": "x" }))?;
    ensure!(good > 200 && bad > 2_000, "{good} good ones and {bad} bad ones were tried");
    Ok(())
}

#[test]
fn the_schema_does_not_know_that_a_model_has_one_entry() -> Result<()> {
    let entry = json!({ "model": "a", "targets": [{ "model": "b" }] });
    let twice = json!({ "model_rewrites": [entry, entry] });
    ensure!(schema()?.is_valid(&twice), "say so in docs/CONFIG.md and in the schema");
    ensure!(Config::parse(twice.to_string().as_bytes()).is_err());
    Ok(())
}

/// Configurations with line ends, long texts and controls where the message would show them.
#[test]
fn every_error_is_one_short_line_that_names_the_key_and_shows_no_secret() -> Result<()> {
    let long = "x\n".repeat(5_000);
    for (key, value) in
        KEYS.iter().flat_map(|key| values().into_iter().chain([json!(long)]).map(move |v| (key.name, v)))
    {
        let Err(error) = Config::parse(json!({ key: value }).to_string().as_bytes()) else { continue };
        let text = error.to_string();
        // Under `admission` it is the inner key.
        ensure!(text.starts_with(&format!("configuration key `{key}")) && text.contains("expected "), "{text}");
        ensure!(text.len() < 400, "{text}");
        ensure!(!text.contains(char::is_control), "{text:?}");
    }
    for text in [json!({ (&long): 1 }).to_string(), json!({ "admission": { (&long): 1 } }).to_string(), long] {
        let error = Config::parse(text.as_bytes()).err().context("accepted")?.to_string();
        ensure!(!error.contains(char::is_control) && error.len() < 800, "{error:?}");
    }
    let error = Config::parse(br#"{"tenant_key":"do not show me"}"#).err().context("accepted")?.to_string();
    ensure!(!error.contains("show me"), "{error}");
    Ok(())
}
