//! Kubernetes objects out of YAML, and where the API takes each kind.
//!
//! In: text, or a chart and values. Out: objects as JSON; the path of a kind's collection. It sends nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tools::root;

/// An object with its kind at hand.
#[derive(Debug, Clone)]
pub struct Object {
    /// As the API takes it.
    pub json: Value,
    /// `apps/v1` and such.
    pub group_version: String,
    /// `Deployment` and such.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Kinds that live outside of namespaces.
const CLUSTER_WIDE: &[&str] =
    &["Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "ClusterPodMonitoring"];

impl Object {
    fn new(json: Value) -> Result<Self> {
        let text = |path: &str| json.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            group_version: text("/apiVersion").context("an object without apiVersion")?,
            kind: text("/kind").context("an object without kind")?,
            name: text("/metadata/name").context("an object without name")?,
            json,
        })
    }

    /// Path of its collection; objects that name no namespace go to the given one.
    #[must_use]
    pub fn collection(&self, namespace: &str) -> String {
        let base = if self.group_version.contains('/') { "/apis" } else { "/api" };
        let plural = match self.kind.to_lowercase() {
            kind if kind.ends_with("policy") => format!("{}ies", kind.trim_end_matches('y')),
            kind => format!("{kind}s"),
        };
        let group = &self.group_version;
        if CLUSTER_WIDE.contains(&self.kind.as_str()) {
            return format!("{base}/{group}/{plural}");
        }
        format!("{base}/{group}/namespaces/{}/{plural}", self.namespace(namespace))
    }

    /// The namespace it goes to.
    #[must_use]
    pub fn namespace<'a>(&'a self, otherwise: &'a str) -> &'a str {
        self.json.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(otherwise)
    }
}

/// The objects of a YAML text, in order.
///
/// # Errors
/// If it is no YAML, or something in it is no object.
pub fn parse(text: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    documents.into_iter().filter(|document| !document.is_null()).map(Object::new).collect()
}

/// Helm, if it is there.
#[must_use]
pub fn helm() -> Option<String> {
    let output = Command::new(root().join("scripts/helm.sh")).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs Helm in the folder of the chart.
///
/// # Errors
/// If it fails: then with what it says.
pub fn run_helm(helm: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(helm).args(arguments).current_dir(root().join("deploy/helm")).output().context("starting Helm")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("helm {arguments:?}: {}{said}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The files with foreign CRDs; `None` where they cannot be had.
#[must_use]
pub fn crd_files() -> Option<Vec<String>> {
    let output = Command::new(root().join("scripts/crds.sh")).output().ok()?;
    let files: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (output.status.success() && files.iter().all(|file| Path::new(file).is_file())).then_some(files)
}
