//! Documents and configuration say what the catalog says. `UPDATE=1` writes the generated parts instead of comparing.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, ensure};
use tally_core::catalog::{self, Bound, Family, Kind, Origin, Source, Unit, profile};
use tally_core::config::{ADMISSION_KEYS, Config, KEYS};
use tally_core::table::Table;
use tally_integration::filter_config;
use tally_integration::tools::root;

const BEGIN: &str = "<!-- generated from core/src: make docs UPDATE=1 -->\n";
const END: &str = "<!-- end of the generated part -->";

fn kind(family: &Family) -> &'static str {
    match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::None => "",
        Unit::Nanoseconds => "nanoseconds",
        Unit::Ratio => "0 to 1",
        Unit::Requests => "requests",
        Unit::Seconds => "seconds",
        Unit::Tokens => "tokens",
        Unit::UnixSeconds => "Unix time",
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Epp => "EPP",
        Origin::EppV15 => "EPP v1.5",
        Origin::LlmD => "llm-d",
        Origin::LoraSidecar => "LoRA sidecar",
        Origin::OpenTelemetry => "OpenTelemetry",
        Origin::Tally => "Tally",
    }
}

fn row(family: &Family) -> String {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!(
        "| `{}` | {} | {} | {} | {} | {} |\n",
        family.name,
        kind(family),
        labels.join(", "),
        unit(family.unit),
        origin(family.origin),
        family.help
    )
}

fn table<'a>(families: impl Iterator<Item = &'a Family>) -> String {
    let mut text = String::from("| name | type | labels | unit | named by | meaning |\n|---|---|---|---|---|---|\n");
    families.for_each(|family| text.push_str(&row(family)));
    text
}

/// Every set of bounds once, with the families that use it.
fn bucket_sets() -> String {
    let mut sets: Vec<(&[Bound], Vec<&str>)> = Vec::new();
    for family in catalog::all() {
        let Kind::Histogram(bounds) = family.kind else { continue };
        match sets.iter_mut().find(|(known, _)| *known == bounds) {
            Some((_, names)) => names.push(family.name),
            None => sets.push((bounds, vec![family.name])),
        }
    }
    let mut text = String::new();
    for (bounds, names) in sets {
        let bounds: Vec<&str> = bounds.iter().map(|bound| bound.le).collect();
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "- {}: {}", names.join(", "), bounds.join(", "));
    }
    text
}

fn metrics_part() -> String {
    let mut text = String::new();
    let parts = [
        (Source::Envoy, "From the filter, at Envoy's `/stats/prometheus` and on tallyd's page"),
        (Source::Companion, "From `tallyd serve`"),
        (Source::LoraSyncer, "From `tallyd lora-syncer`"),
    ];
    for (source, title) in parts {
        let _ = write!(text, "\n## {title}\n\n{}", table(catalog::usual().filter(|family| family.source == source)));
        if source == Source::Envoy {
            let _ = write!(text, "\n## With `profile`\n\n{}", table(profile::FAMILIES.iter().copied()));
        }
    }
    let _ = write!(text, "\n## Bucket bounds\n\n`+Inf` is implied.\n\n{}\n", bucket_sets());
    text
}

fn readme_part() -> String {
    let mut text = String::from("\n| name | type | labels | meaning |\n|---|---|---|---|\n");
    let shown = catalog::all().filter(|family| matches!(family.origin, Origin::Epp | Origin::LoraSidecar));
    for family in shown {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", family.name, kind(family), labels.join(", "), family.help);
    }
    text.push('\n');
    text
}

/// Compares (or writes) what stands between the marks of a document.
fn in_step(document: &str, part: &str) -> Result<()> {
    let path = root().join(document);
    let text = fs::read_to_string(&path).with_context(|| document.to_owned())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{document} has no mark {BEGIN}"))?;
    let (found, after) = rest.split_once(END).with_context(|| format!("{document} has no mark {END}"))?;
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{part}{END}{after}"))?;
        return Ok(());
    }
    ensure!(found == part, "{document} is not in step with the catalog: run `make docs UPDATE=1`");
    Ok(())
}

#[test]
fn docs_metrics_lists_the_catalog() -> Result<()> {
    in_step("docs/METRICS.md", &metrics_part())
}

#[test]
fn the_readme_lists_the_families_of_the_endpoint_picker() -> Result<()> {
    in_step("README.md", &readme_part())
}

#[test]
fn docs_config_and_docs_admission_list_the_keys_of_the_filter() -> Result<()> {
    in_step("docs/CONFIG.md", &format!("\n{}\n", filter_config::table(KEYS)))?;
    in_step("docs/ADMISSION.md", &format!("\n{}\n", filter_config::table(ADMISSION_KEYS)))
}

#[test]
fn the_schema_file_is_made_of_the_keys_of_the_filter() -> Result<()> {
    let path = root().join("envoy/tally.schema.json");
    let schema = filter_config::schema(filter_config::object(KEYS));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&schema)?))?;
    }
    let found: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    ensure!(found == schema, "envoy/tally.schema.json is not in step with core/src/config: run `make docs UPDATE=1`");
    Ok(())
}

/// The labels of these families, `le` with them.
fn labels(families: impl Iterator<Item = &'static Family>) -> BTreeSet<&'static str> {
    let of_envoy = families.filter(|family| family.source == Source::Envoy);
    of_envoy.flat_map(|family| family.labels.iter().copied()).chain(["le"]).collect()
}

/// Compares the tags of a file of Envoy's with labels.
fn tags_are(file: &str, labels: &BTreeSet<&str>) -> Result<()> {
    let text = fs::read_to_string(root().join(file))?;
    let written: BTreeSet<&str> = text.lines().map(str::trim).filter(|line| line.contains("tag_name:")).collect();
    let expected: BTreeSet<String> = labels
        .iter()
        .map(|label| format!(r"- {{ tag_name: {label}, regex: '(?:^wasmcustom\.|;\.;)({label}=\.=([^;]*);\.;)' }}"))
        .collect();
    let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&written).collect();
    let foreign: Vec<_> = written.difference(&expected).collect();
    ensure!(missing.is_empty() && foreign.is_empty(), "{file}: missing: {missing:#?}\nnot known: {foreign:#?}");
    Ok(())
}

#[test]
fn the_bootstrap_takes_every_label_out_of_a_stat_name_and_no_other() -> Result<()> {
    tags_are("envoy/bootstrap.yaml", &labels(catalog::usual()))
}

#[test]
fn the_profiles_tags_are_the_labels_that_the_bootstrap_does_not_have() -> Result<()> {
    let usual = labels(catalog::usual());
    let more: BTreeSet<&str> = labels(profile::FAMILIES.iter().copied()).difference(&usual).copied().collect();
    tags_are("envoy/profile-tags.yaml", &more)?;
    let text = fs::read_to_string(root().join("envoy/profile-tags.yaml"))?;
    let named: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# ")).flat_map(|line| line.split(',')).collect();
    ensure!(more.is_subset(&named), "the line for extraStatTags has {named:?}");
    Ok(())
}

#[test]
fn every_make_target_that_a_document_names_exists() -> Result<()> {
    let makefile = fs::read_to_string(root().join("Makefile"))?;
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| line.split_once(':').map(|(name, _)| name)).collect();
    for document in documents()? {
        let text = fs::read_to_string(root().join(&document))?;
        for rest in text.split("`make ").skip(1) {
            let target = rest.split([' ', '`', '\n']).next().unwrap_or_default();
            ensure!(targets.contains(target), "{document} names `make {target}`");
        }
    }
    Ok(())
}

#[test]
fn every_file_that_a_document_links_to_exists() -> Result<()> {
    for document in documents()? {
        let path = root().join(&document);
        let text = fs::read_to_string(&path)?;
        for rest in text.split("](").skip(1) {
            let link = rest.split([')', '#']).next().unwrap_or_default();
            let foreign = link.is_empty() || link.contains("://");
            let there = path.parent().is_some_and(|folder| folder.join(link).exists());
            ensure!(foreign || there, "{document} links to {link}");
        }
    }
    Ok(())
}

fn documents() -> Result<Vec<String>> {
    let mut found = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            found.push(format!("docs/{name}"));
        }
    }
    Ok(found)
}

#[test]
fn the_stats_that_profiles_cost_at_most_are_those_of_the_table() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/METRICS.md"))?.replace('\n', " ");
    let stats = |configuration: &str| -> Result<String> {
        let config = Config::parse(configuration.as_bytes()).map_err(|error| anyhow::anyhow!("{error}"))?;
        let stats = Table::worst_case(&config);
        Ok(format!("{},{:03}", stats / 1_000, stats % 1_000))
    };
    let sentence = format!(
        "at most {} stats (`llm_d_epp`), {} (`gen_ai`) or {} (both) instead of {};",
        stats(r#"{"profile":"llm_d_epp"}"#)?,
        stats(r#"{"profile":"gen_ai"}"#)?,
        stats(r#"{"profile":["llm_d_epp","gen_ai"]}"#)?,
        stats("{}")?
    );
    ensure!(page.contains(&sentence), "docs/METRICS.md is to say: {sentence}");
    Ok(())
}
