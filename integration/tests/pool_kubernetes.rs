//! Discovery against a real kube-apiserver and etcd: what a pool's objects say is who is scraped.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper may stop it")]

#[path = "../../companion/tests/pool/mod.rs"]
mod pool;

use pool::{Behaviour, Running, Server, vllm};
use serde_json::{Value, json};
use tally_integration::kube::{Kube, programs};

const READY: &str = "inference_pool_ready_pods{name=\"p\"}";
const QUEUE: &str = "inference_pool_average_queue_size{name=\"p\"}";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn definition(group: &str, version: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("inferencepools.{group}"),
            // The API server asks for this in its own groups.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "inferencepools", "singular": "inferencepool", "kind": "InferencePool"},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    })
}

fn pods_path(name: &str) -> String {
    format!("{PODS}/{name}")
}

fn create_pod(kube: &Kube, name: &str, app: &str, engine: Option<&str>) {
    let mut labels = json!({"app": app});
    if let Some(engine) = engine {
        labels["inference.networking.k8s.io/engine-type"] = engine.into();
    }
    // The finalizer keeps a deleted pod there, as a grace period does on a real node.
    let metadata = json!({"name": name, "labels": labels, "finalizers": ["tally.test/hold"]});
    let spec = json!({"containers": [{"name": "server", "image": "none"}], "automountServiceAccountToken": false});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    kube.create(PODS, &pod).unwrap();
}

fn set_ready(kube: &Kube, name: &str, ip: &str, ready: &str) {
    let status = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "status": {
            "podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
        },
    });
    let path = format!("{}/status?fieldManager=test&force=true", pods_path(name));
    let reply = kube.apply(&path, &status.to_string()).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.body);
}

/// The API with both kinds of pool, and a kubeconfig of an account that may do what the chart's role says and no more.
fn cluster() -> (Kube, std::path::PathBuf) {
    let kube = Kube::start().unwrap();
    for (group, version) in tallyd::discovery::VERSIONS {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        kube.create(path, &definition(group, version)).unwrap();
        let collection = format!("/apis/{group}/{version}/namespaces/default/inferencepools");
        let served = tally_integration::tools::poll(pool::DEADLINE, || {
            (kube.call("GET", &collection, None).ok()?.status == 200).then_some(())
        });
        served.unwrap();
    }
    let token = kube.service_account("default", "tallyd", 3600).unwrap();
    let verbs = json!(["get", "list", "watch"]);
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {"apiGroups": tallyd::discovery::VERSIONS.map(|(group, _)| group), "resources": ["inferencepools"], "verbs": verbs},
    ]);
    kube.allow("default", "tallyd", "tallyd", &rules).unwrap();
    let config = kube.folder().join("tallyd.kubeconfig");
    std::fs::write(&config, kube.kubeconfig_with(&token).unwrap()).unwrap();
    (kube, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_pool_is_who_the_cluster_says_it_is() {
    if let Err(reason) = programs() {
        println!("{reason}");
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    // On this thread: the servers end with the thread that started them.
    let (mut kube, config) = tokio::task::block_in_place(cluster);
    let one = Server::start_at("127.0.0.2:0", Behaviour::Page(vllm(2.0, 1.0, 0.5))).await;
    let port = one.address.port();
    let page = "sglang:num_queue_reqs 7\nsglang:num_running_reqs 1\nsglang:token_usage 0.5\n";
    let two = Server::start_at(&format!("127.0.0.3:{port}"), Behaviour::Page(vllm(4.0, 1.0, 0.5))).await;
    let three = Server::start_at(&format!("127.0.0.4:{port}"), Behaviour::Page(vllm(12.0, 1.0, 0.5))).await;
    let other = Server::start_at(&format!("127.0.0.5:{port}"), Behaviour::Page(page.into())).await;
    let running = Running::start(&format!(
        "- {{name: p, engine: vllm, discovery: {{kubernetes: {{kubeconfig: \"{0}\"}}}}}}\n\
         - {{name: labels, engine: vllm, discovery: {{kubernetes: {{kubeconfig: \"{0}\", endpoint_selector: app=other, \
         target_ports: [{port}, 9]}}}}}}\n",
        config.display()
    ));
    // No pool yet: nothing is said about it. Pods alone are enough for the other one, and there are none.
    running.until(&[("inference_pool_ready_pods{name=\"labels\"}", Some(0.0)), (READY, None)]).await;

    create_pod(&kube, "one", "vllm", None);
    create_pod(&kube, "two", "vllm", None);
    create_pod(&kube, "three", "vllm", None);
    create_pod(&kube, "other", "other", Some("sglang"));
    set_ready(&kube, "one", "127.0.0.2", "True");
    set_ready(&kube, "two", "127.0.0.3", "True");
    set_ready(&kube, "three", "127.0.0.4", "False");
    set_ready(&kube, "other", "127.0.0.5", "True");
    let pools = "/apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools";
    let v1 = |app: &str| {
        json!({
            "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "p"},
            "spec": {
                "selector": {"matchLabels": {"app": app}}, "targetPorts": [{"number": port}],
                "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
            },
        })
    };
    kube.create(pools, &v1("vllm")).unwrap();
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(3.0))]).await;
    let queue =
        |pod: &str| format!("inference_pool_per_pod_queue_size{{name=\"p\",model_server_pod=\"{pod}-rank-0\"}}");
    assert_eq!((running.value(&queue("one")), running.value(&queue("three"))), (Some(2.0), None));
    // Two ports: two ranks, one of which nobody serves. The label says that it is SGLang, whatever the config says.
    let rank = "inference_pool_per_pod_queue_size{name=\"labels\",model_server_pod=\"other-rank-0\"}";
    running.until(&[("inference_pool_ready_pods{name=\"labels\"}", Some(1.0)), (rank, Some(7.0))]).await;

    set_ready(&kube, "three", "127.0.0.4", "True");
    running.until(&[(READY, Some(3.0)), (QUEUE, Some(6.0))]).await;
    // On its way out, but still there.
    assert_eq!(kube.call("DELETE", &pods_path("two"), None).unwrap().status, 200);
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(7.0)), (&queue("two"), None)]).await;
    assert!(!running.page().contains("two-rank-0"));

    let path = format!("{pools}/p?fieldManager=test&force=true");
    assert_eq!(kube.apply(&path, &v1("other").to_string()).unwrap().status, 200);
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(7.0)), (&queue("one"), None)]).await;
    assert_eq!(kube.apply(&path, &v1("vllm").to_string()).unwrap().status, 200);
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(7.0))]).await;

    // The API goes away: the set stays, and what changed meanwhile is seen when it is back.
    kube.stop_api();
    let asked = one.asked();
    while one.asked() < asked + 20 {
        assert_eq!(running.value(READY), Some(2.0));
        tokio::task::yield_now().await;
    }
    tokio::task::block_in_place(|| kube.start_api()).unwrap();
    set_ready(&kube, "three", "127.0.0.4", "False");
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(2.0))]).await;

    // The pool goes, and comes back in the older version.
    assert_eq!(kube.call("DELETE", &format!("{pools}/p"), None).unwrap().status, 200);
    running.until(&[(READY, Some(0.0)), (QUEUE, None)]).await;
    let old = json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferencePool", "metadata": {"name": "p"},
        "spec": {"selector": {"app": "vllm"}, "targetPortNumber": port, "extensionRef": {"name": "epp"}},
    });
    kube.create("/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferencepools", &old).unwrap();
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(2.0))]).await;
    drop((two, three, other));
}
