//! The contract with users: names that have been released stay. The lists lie in `testdata/contract`.
//!
//! A name that goes away fails here. New ones fail too, until `UPDATE_CONTRACT=1` has added them; it never takes a line out.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tally_core::api::Api;
use tally_core::catalog::{self, Kind};
use tally_core::config::{ADMISSION_KEYS, KEYS};
use tally_core::outcome::{ErrorCode, Outcome};
use tally_core::request::RequestQuality;
use tally_core::usage::UsageQuality;
use tally_integration::tools::{root, tallyd};
use tallyd::config::{Config, ServeArgs};

type Lines = BTreeSet<String>;

fn compare(file: &str, found: &Lines) -> Result<()> {
    let path = root().join("testdata/contract").join(file);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let promised: Lines = text.lines().map(str::to_owned).collect();
    let (gone, new) = differences(&promised, found);
    ensure!(gone.is_empty(), "released, and gone: {gone:#?}\nsee README, \"What stays\"");
    if std::env::var_os("UPDATE_CONTRACT").is_some() {
        let all: Vec<&str> = promised.union(found).map(String::as_str).collect();
        fs::write(&path, all.join("\n") + "\n")?;
        return Ok(());
    }
    ensure!(new.is_empty(), "not in testdata/contract/{file} yet; UPDATE_CONTRACT=1 adds them for good: {new:#?}");
    Ok(())
}

/// What was promised and is not there, and what is there and was not promised.
fn differences<'a>(promised: &'a Lines, found: &'a Lines) -> (Vec<&'a String>, Vec<&'a String>) {
    (promised.difference(found).collect(), found.difference(promised).collect())
}

#[test]
fn released_metrics_labels_values_and_bucket_bounds_stay() -> Result<()> {
    let mut lines = Lines::new();
    for family in catalog::all() {
        let name = family.name;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(bounds) => {
                lines.extend(bounds.iter().map(|bound| format!("{name} bucket {}", bound.le)));
                "histogram"
            }
        };
        lines.insert(format!("{name} {kind}"));
        lines.extend(family.labels.iter().map(|label| format!("{name} label {label}")));
    }
    let mut values = |label: &str, values: &[&str]| {
        lines.extend(values.iter().map(|value| format!("value {label} {value}")));
    };
    values("outcome", &Outcome::ALL.map(Outcome::label));
    values("error_code", &ErrorCode::ALL.map(ErrorCode::label));
    values("api", &Api::ALL.map(Api::name));
    values("quality", &UsageQuality::ALL.map(UsageQuality::label));
    values("quality", &RequestQuality::ALL.map(RequestQuality::label));
    compare("metrics.txt", &lines)
}

#[test]
fn released_keys_of_the_filters_configuration_stay() -> Result<()> {
    let keys = KEYS.iter().map(|key| key.name.to_owned());
    let inner = ADMISSION_KEYS.iter().map(|key| format!("admission.{}", key.name));
    compare("filter-config.txt", &keys.chain(inner).collect())
}

#[test]
fn released_commands_flags_and_variables_of_tallyd_stay() -> Result<()> {
    let help = |words: &[&str]| -> Result<String> {
        let said = Command::new(tallyd()?).args(words).arg("--help").output()?;
        ensure!(said.status.success(), "tallyd {} --help", words.join(" "));
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let mut lines = Lines::new();
    for words in [&["serve"][..], &["config", "check"], &["doctor"], &["lora-syncer"], &["flow-sim"]] {
        let command = words.join(" ");
        let help = help(words)?;
        for option in help.lines().map(|line| line.trim_start().trim_start_matches("-h, ")) {
            let name = option.split([' ', '=', '[']).next().unwrap_or_default();
            if name.starts_with("--") && name != "--help" {
                lines.insert(format!("{command} {name}"));
            }
        }
        for rest in help.split("[env: ").skip(1) {
            lines.insert(format!("{command} ${}", rest.split(['=', ']']).next().unwrap_or_default()));
        }
        lines.insert(command);
    }
    compare("tallyd-flags.txt", &lines)
}

/// Sections of the file, each with a key that cannot be: the answer lists those that can.
const SECTIONS: [(&str, &str); 17] = [
    ("", "nonsense: 1"),
    ("listen.", "listen: {nonsense: 1}"),
    ("tls.", "tls: {nonsense: 1}"),
    ("auth.", "auth: {nonsense: 1}"),
    ("auth.cache.", "auth: {cache: {nonsense: 1}}"),
    ("envoy[].", "envoy: [{nonsense: 1}]"),
    ("pprof.", "pprof: {nonsense: 1}"),
    ("logging.", "logging: {nonsense: 1}"),
    ("pools[].", "pools: [{nonsense: 1}]"),
    ("pools[].discovery.", "pools: [{name: p, discovery: {nonsense: 1}}]"),
    ("pools[].discovery.dns.", "pools: [{name: p, discovery: {dns: {nonsense: 1}}}]"),
    ("pools[].discovery.kubernetes.", "pools: [{name: p, discovery: {kubernetes: {nonsense: 1}}}]"),
    ("pools[].metrics.", "pools: [{name: p, metrics: {nonsense: 1}}]"),
    ("pools[].mapping.", "pools: [{name: p, mapping: {nonsense: 1}}]"),
    ("flow_control.", "flow_control: {nonsense: 1}"),
    ("flow_control.priorityBands[].", "flow_control: {priorityBands: [{nonsense: 1}]}"),
    ("flow_control.saturationDetector.", "flow_control: {saturationDetector: {nonsense: 1}}"),
];

#[test]
fn released_keys_of_tallyds_file_stay() -> Result<()> {
    let mut lines = Lines::new();
    for (section, text) in SECTIONS {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        let args = ServeArgs { config: Some(file.path().to_owned()), ..ServeArgs::default() };
        let said = Config::load(&args).err().with_context(|| format!("{text}: taken"))?;
        let known = said.split_once("expected one of ").or_else(|| said.split_once("known here are "));
        let (_, known) = known.with_context(|| format!("{text}: {said}"))?;
        let known = known.split(" at line ").next().unwrap_or_default();
        lines.extend(known.split(", ").map(|key| format!("{section}{}", key.trim_matches('`'))));
    }
    compare("tallyd-config.txt", &lines)
}

#[test]
fn released_keys_of_the_adapters_file_stay() -> Result<()> {
    let mut lines = Lines::new();
    for (section, text) in [
        ("", "{vLLMLoRAConfig: {}, nonsense: 1}"),
        ("vLLMLoRAConfig.", "vLLMLoRAConfig: {nonsense: 1}"),
        ("vLLMLoRAConfig.ensureExist.", "vLLMLoRAConfig: {ensureExist: {models: [], nonsense: 1}}"),
        (
            "vLLMLoRAConfig.ensureExist.models[].",
            "vLLMLoRAConfig: {ensureExist: {models: [{id: a, source: b, nonsense: 1}]}}",
        ),
    ] {
        let said = tallyd::lora::check(text).map_err(|problem| anyhow::anyhow!(problem))?.warnings.concat();
        let (_, known) = said.split_once("known are ").with_context(|| format!("{text}: {said}"))?;
        lines.extend(known.split(", ").map(|key| format!("{section}{key}")));
    }
    compare("lora-config.txt", &lines)
}

#[test]
fn a_name_that_goes_away_is_seen_and_one_that_comes_is_too() {
    let lines = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Lines>();
    let (promised, found) = (lines(&["a", "b"]), lines(&["b", "c"]));
    assert_eq!(differences(&promised, &found), (vec![&"a".to_owned()], vec![&"c".to_owned()]));
}
