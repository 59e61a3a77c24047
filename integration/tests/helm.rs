//! The chart, the plain manifests and Istio's objects: Helm renders them, a real API server takes them, strictly.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tally_integration::kube::Kube;
use tally_integration::manifests::{self, Object, run_helm};
use tally_integration::tools::{poll, root};

/// Where the plain manifests say they are rendered for.
const NAMESPACE: &str = "tally-system";
/// Kinds whose CRDs can be had from nowhere by name: only looked at, not shown to the API server.
const WITHOUT_CRD: &[&str] = &["PodMonitoring", "ClusterPodMonitoring"];

/// What is rendered for those without Helm: file, arguments.
const PLAIN: &[(&str, &[&str])] = &[
    ("tallyd.yaml", &[]),
    (
        "prometheus-operator.yaml",
        &[
            "--set=serviceMonitor.enabled=true,podMonitor.enabled=true,loraPodMonitor.enabled=true",
            "--set=prometheusRule.enabled=true",
            "--show-only=templates/servicemonitor.yaml",
            "--show-only=templates/podmonitor.yaml",
            "--show-only=templates/observability.yaml",
        ],
    ),
    ("google-managed-prometheus.yaml", &["--set=gmp.podMonitoring=true", "--show-only=templates/gmp.yaml"]),
];

fn render(helm: &str, arguments: &[&str]) -> Result<String> {
    let mut all = vec!["template", "tally", "tally", "--namespace", NAMESPACE, "--kube-version", "1.34.0"];
    all.extend(arguments);
    run_helm(helm, &all)
}

macro_rules! helm_or_return {
    () => {
        match manifests::helm() {
            Some(helm) => helm,
            None => {
                println!("not run: no Helm 3 (make setup-helm)");
                return Ok(());
            }
        }
    };
}

fn find<'a>(objects: &'a [Object], kind: &str, name: &str) -> Result<&'a Value> {
    let found = objects.iter().find(|object| object.kind == kind && object.name == name);
    Ok(&found.with_context(|| format!("no {kind} {name}"))?.json)
}

#[test]
fn helm_finds_no_fault_in_the_chart() -> Result<()> {
    let helm = helm_or_return!();
    run_helm(&helm, &["lint", "--strict", "tally", "--kube-version", "1.34.0"])?;
    run_helm(&helm, &["lint", "--strict", "tally", "--kube-version", "1.34.0", "--values", "everything.yaml"])?;
    Ok(())
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_name() -> Result<()> {
    let helm = helm_or_return!();
    let wrong = [
        ("replicas=many", "replicas"),
        ("auth.mode=basic", "auth"),
        ("service.metricsPort=70000", "metricsPort"),
        ("serviceMonitr.enabled=true", "serviceMonitr"),
        ("image.digest=abc", "digest"),
        ("gmp.interval=soon", "interval"),
    ];
    for (set, named) in wrong {
        let refused = render(&helm, &["--set", set]).err().with_context(|| format!("{set} was let through"))?;
        ensure!(refused.to_string().contains(named), "{set}: {refused}");
    }
    let refused = render(&helm, &["--set", "auth.mode=token-file"]).err().context("a mode without its Secret")?;
    ensure!(refused.to_string().contains("auth.tokenSecretName is needed"), "{refused}");
    Ok(())
}

#[test]
fn the_names_of_the_readers_account_are_those_of_the_endpoint_pickers_guide() -> Result<()> {
    let helm = helm_or_return!();
    let objects = manifests::parse(&render(&helm, &["--values", "everything.yaml"])?)?;
    let role = find(&objects, "ClusterRole", "inference-gateway-metrics-reader")?;
    let rule = &role["rules"][0];
    ensure!(rule["nonResourceURLs"] == serde_json::json!(["/metrics", "/debug/pprof/*"]), "{rule}");
    ensure!(rule["verbs"] == serde_json::json!(["get"]), "{rule}");
    find(&objects, "ServiceAccount", "inference-gateway-sa-metrics-reader")?;
    let secret = find(&objects, "Secret", "inference-gateway-sa-metrics-reader-secret")?;
    ensure!(secret["type"] == "kubernetes.io/service-account-token", "{secret}");
    let binding = find(&objects, "ClusterRoleBinding", "inference-gateway-sa-metrics-reader-role-binding")?;
    let subjects: Vec<&Value> =
        binding["subjects"].as_array().context("subjects")?.iter().map(|s| &s["name"]).collect();
    ensure!(subjects == ["inference-gateway-sa-metrics-reader", "prometheus"], "{binding}");
    let own = find(&objects, "ClusterRole", "tally-system-tally-auth")?;
    let may: BTreeSet<String> =
        own["rules"].as_array().context("rules")?.iter().map(|r| r["resources"][0].to_string()).collect();
    ensure!(may == BTreeSet::from(["\"subjectaccessreviews\"".to_owned(), "\"tokenreviews\"".to_owned()]), "{own}");
    Ok(())
}

#[test]
fn pods_run_without_rights() -> Result<()> {
    let helm = helm_or_return!();
    let objects = manifests::parse(&render(&helm, &[])?)?;
    let pod = &find(&objects, "Deployment", "tally")?["spec"]["template"]["spec"];
    let container = &pod["containers"][0]["securityContext"];
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "{pod}");
    ensure!(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", "{pod}");
    ensure!(container["allowPrivilegeEscalation"] == false && container["readOnlyRootFilesystem"] == true, "{pod}");
    ensure!(container["capabilities"]["drop"] == serde_json::json!(["ALL"]), "{pod}");
    Ok(())
}

#[test]
fn plain_manifests_are_what_the_chart_renders() -> Result<()> {
    let helm = helm_or_return!();
    let folder = root().join("deploy/manifests");
    for (file, arguments) in PLAIN {
        let made = format!(
            "# Rendered from deploy/helm/tally (make manifests). Apply with: kubectl apply --namespace {NAMESPACE} --filename {file}\n{}",
            render(&helm, arguments)?
        );
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(file), &made)?;
        }
        let found = fs::read_to_string(folder.join(file)).with_context(|| (*file).to_owned())?;
        ensure!(found == made, "deploy/manifests/{file} is not in step with the chart: run `make manifests`");
    }
    Ok(())
}

/// Everything that is offered to a cluster: where it comes from, its objects.
fn offered() -> Result<Vec<(String, Vec<Object>)>> {
    let mut all = Vec::new();
    if let Some(helm) = manifests::helm() {
        all.push(("chart, defaults".to_owned(), manifests::parse(&render(&helm, &[])?)?));
        all.push((
            "chart, everything".to_owned(),
            manifests::parse(&render(&helm, &["--values", "everything.yaml"])?)?,
        ));
    }
    let mut files: Vec<PathBuf> = vec![root().join("deploy/lora-sidecar.yaml")];
    for folder in ["deploy/manifests", "envoy/istio"] {
        for entry in fs::read_dir(root().join(folder))? {
            files.push(entry?.path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file)?;
        all.push((file.display().to_string(), manifests::parse(&text).with_context(|| file.display().to_string())?));
    }
    Ok(all)
}

/// Shows the CRDs to the API server and waits until it serves them; names their kinds.
fn install_crds(kube: &Kube) -> Result<BTreeSet<String>> {
    let Some(files) = manifests::crd_files() else {
        println!("not run: the CRDs of Istio, the Prometheus operator and the Gateway API (no Go, or no modules)");
        return Ok(BTreeSet::new());
    };
    let mut kinds = BTreeSet::new();
    for file in files {
        for crd in manifests::parse(&fs::read_to_string(&file)?)? {
            kube.create(&crd.collection(""), &crd.json)?;
            let path = format!("{}/{}", crd.collection(""), crd.name);
            let served = poll(Duration::from_secs(30), || {
                let reply = kube.call("GET", &path, None).ok()?;
                let conditions = reply.body.pointer("/status/conditions").and_then(Value::as_array)?;
                conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True").then_some(())
            });
            ensure!(served.is_some(), "{} is not established", crd.name);
            let kind = crd.json.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default();
            kinds.insert(kind.to_owned());
        }
    }
    Ok(kinds)
}

#[test]
fn a_real_api_server_takes_every_object_strictly() -> Result<()> {
    let kube = match Kube::start() {
        Ok(kube) => kube,
        Err(error) if error.to_string().starts_with("not run") => {
            println!("{error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let foreign = install_crds(&kube)?;
    let (mut taken, mut passed_over) = (0, BTreeSet::new());
    for (place, objects) in offered()? {
        for object in objects {
            let is_foreign = object.group_version.contains('.') && !object.group_version.contains(".k8s.io/")
                || object.group_version.starts_with("gateway.networking");
            if is_foreign && !foreign.contains(&object.kind) {
                passed_over.insert(object.kind);
                continue;
            }
            let namespace = object.namespace(NAMESPACE);
            let space =
                serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
            kube.call("POST", "/api/v1/namespaces", Some(&space))?;
            let path = format!("{}?dryRun=All&fieldValidation=Strict", object.collection(NAMESPACE));
            let reply = kube.call("POST", &path, Some(&object.json))?;
            ensure!(reply.status == 201, "{place}: {} {}: {}", object.kind, object.name, reply.body);
            taken += 1;
        }
    }
    let expected: BTreeSet<String> = WITHOUT_CRD.iter().map(|&kind| kind.to_owned()).collect();
    ensure!(foreign.is_empty() || passed_over == expected, "passed over: {passed_over:?}");
    println!("{taken} objects taken; not shown to it: {passed_over:?}");
    Ok(())
}

#[test]
fn the_api_server_would_notice_a_slip() -> Result<()> {
    let kube = match Kube::start() {
        Ok(kube) => kube,
        Err(error) if error.to_string().starts_with("not run") => {
            println!("{error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let text =
        fs::read_to_string(root().join("deploy/manifests/tallyd.yaml"))?.replace("readOnly: true", "readonly: true");
    let objects = manifests::parse(&text)?;
    let deployment = objects.iter().find(|object| object.kind == "Deployment").context("a Deployment")?;
    let path = format!("{}?dryRun=All&fieldValidation=Strict", deployment.collection("default"));
    let reply = kube.call("POST", &path, Some(&deployment.json))?;
    ensure!(reply.status == 400 && reply.body.to_string().contains("readonly"), "{}", reply.body);
    Ok(())
}
