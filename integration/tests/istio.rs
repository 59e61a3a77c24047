//! Istio's variants in the real Envoy: the tags of both ways, and the filter as the ECDS patch configures it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tally_integration::client::Request;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::manifests;
use tally_integration::model_server::ModelServer;
use tally_integration::page::Page;
use tally_integration::tools::{self, poll, root};

const SOON: Duration = Duration::from_secs(30);
const TOTAL: &str = "inference_objective_request_total";
/// Names that clients can send and that have broken label extraction somewhere.
const HOSTILE: &[&str] =
    &["plain", "org/model:7b", "le=.=9", "x;.;le=.=9;.;y", "a.", "ends;.", "two\nlines", "ünïcode 🦙", "role=.=user"];

fn bootstrap() -> Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(root().join("envoy/bootstrap.yaml"))?)?)
}

/// The first object of a file in envoy/istio.
fn object(file: &str) -> Result<Value> {
    let text = fs::read_to_string(root().join("envoy/istio").join(file))?;
    Ok(manifests::parse(&text)?.into_iter().next().with_context(|| file.to_owned())?.json)
}

fn part<'a>(value: &'a Value, path: &str) -> Result<&'a Value> {
    value.pointer(path).with_context(|| format!("no {path}"))
}

#[test]
fn the_patched_tags_are_those_of_the_bootstrap_and_the_annotation_names_the_same_labels() -> Result<()> {
    let bootstrap = bootstrap()?;
    let own = part(&bootstrap, "/stats_config/stats_tags")?;
    let patch = object("stats-tags.yaml")?;
    ensure!(
        part(&patch, "/spec/configPatches/0/patch/value/stats_config/stats_tags")? == own,
        "stats-tags.yaml differs"
    );
    let gateway = object("extra-stat-tags.yaml")?;
    let named = part(&gateway, "/spec/infrastructure/annotations/sidecar.istio.io~1extraStatTags")?;
    let named: Vec<&str> = named.as_str().unwrap_or_default().split(',').collect();
    let own: Vec<&str> = own.as_array().into_iter().flatten().filter_map(|tag| tag["tag_name"].as_str()).collect();
    ensure!(named == own, "extra-stat-tags.yaml names {named:?}, the bootstrap {own:?}");
    Ok(())
}

/// Sends requests with these model names and gives the page when all are counted.
fn counted(envoy: &Envoy) -> Result<Page> {
    for name in HOSTILE {
        let body = json!({ "model": name, "messages": [] }).to_string();
        Request::post("/v1/chat/completions", body).send(envoy.port)?;
    }
    // New stats come a few a tick: done when every model has as many as the others.
    let page =
        poll(SOON, || envoy.page().ok().filter(|page| page.total(TOTAL, &[]) == HOSTILE.len() as f64 && even(page)));
    page.with_context(|| format!("not all is counted: {:?}", envoy.page().map(|page| sizes(&page))))
}

/// How many series each model has.
fn sizes(page: &Page) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for model in page.samples.iter().filter_map(|sample| sample.labels.get("target_model_name")) {
        *sizes.entry(model.clone()).or_default() += 1;
    }
    sizes
}

fn even(page: &Page) -> bool {
    let sizes: Vec<usize> = sizes(page).into_values().collect();
    sizes.len() == HOSTILE.len() && sizes.iter().all(|size| Some(size) == sizes.first() && *size > 80)
}

/// Gauges that are only there if a tick came while a request was in flight.
const BY_CHANCE: &[&str] = &["inference_objective_running_requests", "tally_filter_live_streams"];

/// Every series of the filter that is there whenever the ticks came: name and labels.
fn series(page: &Page) -> BTreeSet<String> {
    let ours = |name: &str| {
        let is_ours =
            name.starts_with("inference_") || name.starts_with("normalized_") || name.contains("tally_filter");
        is_ours && !BY_CHANCE.contains(&name)
    };
    page.samples
        .iter()
        .filter(|sample| ours(&sample.name) || sample.name.contains("___"))
        .map(|sample| format!("{}{:?}", sample.name, sample.labels))
        .collect()
}

#[test]
fn istios_own_unanchored_tags_give_the_same_labels_as_ours() -> Result<()> {
    let upstream = ModelServer::start()?.port;
    let ours = Envoy::start(&Options::to(upstream))?;
    let expected = series(&counted(&ours)?);
    drop(ours);
    // What Istio makes of extraStatTags, and that it takes none of Envoy's own tags.
    let text = fs::read_to_string(root().join("envoy/bootstrap.yaml"))?;
    let unanchored = text
        .replace(r"(?:^wasmcustom\.|;\.;)", "")
        .replace(r"([^;]*);\.;)'", r"(.*?);\.;)'")
        .replace("  stats_tags:\n", "  use_all_default_tags: false\n  stats_tags:\n");
    ensure!(unanchored.contains(r"regex: '(model_name=\.=(.*?);\.;)'"), "the bootstrap's patterns have another shape");
    let istio = Envoy::start_from(&unanchored, &Options::to(upstream))?;
    let found = series(&counted(&istio)?);
    let (more, fewer): (Vec<_>, Vec<_>) =
        (found.difference(&expected).take(5).collect(), expected.difference(&found).take(5).collect());
    ensure!(more.is_empty() && fewer.is_empty(), "only under Istio: {more:#?}\nonly under ours: {fewer:#?}");
    ensure!(expected.len() > HOSTILE.len() * 80, "{} series", expected.len());
    Ok(())
}

#[test]
fn the_real_envoy_takes_the_filter_and_the_cluster_as_the_patches_have_them() -> Result<()> {
    let patch = object("envoyfilter-ecds.yaml")?;
    let mut filter = part(&patch, "/spec/configPatches/0/patch/value")?.clone();
    // Istio's agent fetches the image and puts a file in its place.
    let code = filter.pointer_mut("/typed_config/config/vm_config/code").context("code")?;
    ensure!(code["remote"]["http_uri"]["uri"].as_str().is_some_and(|uri| uri.starts_with("oci://")), "{code}");
    *code = json!({ "local": { "filename": tools::filter()?.display().to_string() } });
    let mut bootstrap = bootstrap()?;
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
    *bootstrap.pointer_mut(manager).context("http_filters")? = filter;
    let cluster = object("tallyd-cluster.yaml")?;
    let clusters =
        bootstrap.pointer_mut("/static_resources/clusters").and_then(Value::as_array_mut).context("clusters")?;
    clusters.retain(|one| one["name"] != "tallyd");
    clusters.push(part(&cluster, "/spec/configPatches/0/patch/value")?.clone());

    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    fs::write(file.path(), bootstrap.to_string())?;
    let output = Command::new(tools::envoy()?)
        .args(["--mode", "validate", "--config-path"])
        .arg(file.path())
        .output()
        .context("Envoy")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
