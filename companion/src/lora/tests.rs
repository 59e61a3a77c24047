//! The loop against a server that answers with vLLM's recorded bytes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// What the replayer holds; the answers' bytes are the recorded ones with the names put in.
#[derive(Default)]
struct Server {
    adapters: Mutex<BTreeMap<String, String>>,
}

fn recorded(bytes: &str, id: &str) -> String {
    bytes.replace("lora-1", id).replace("lora-3", id).replace("lora-x", id)
}

async fn load(State(server): State<Arc<Server>>, body: String) -> (StatusCode, String) {
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    let (id, path) = (asked["lora_name"].as_str().unwrap(), asked["lora_path"].as_str().unwrap());
    let mut adapters = server.adapters.lock().unwrap();
    if path.contains("no/such") {
        return (StatusCode::NOT_FOUND, recorded(include_str!("../../tests/lora/vllm/load-missing-path.body"), id));
    }
    if adapters.contains_key(id) && asked["load_inplace"] != true {
        return (StatusCode::BAD_REQUEST, recorded(include_str!("../../tests/lora/vllm/load-again.body"), id));
    }
    adapters.insert(id.to_owned(), path.to_owned());
    (StatusCode::OK, recorded(include_str!("../../tests/lora/vllm/load.body"), id))
}

async fn unload(State(server): State<Arc<Server>>, body: String) -> (StatusCode, String) {
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    let id = asked["lora_name"].as_str().unwrap();
    match server.adapters.lock().unwrap().remove(id) {
        Some(_) => (StatusCode::OK, recorded(include_str!("../../tests/lora/vllm/unload.body"), id)),
        None => (StatusCode::NOT_FOUND, recorded(include_str!("../../tests/lora/vllm/unload-again.body"), id)),
    }
}

async fn models(State(server): State<Arc<Server>>) -> String {
    let mut page: serde_json::Value = serde_json::from_str(include_str!("../../tests/lora/vllm/models.body")).unwrap();
    let (base, sample) = (page["data"][0].clone(), page["data"][1].clone());
    let mut data = vec![base];
    for (id, root) in &*server.adapters.lock().unwrap() {
        let mut entry = sample.clone();
        (entry["id"], entry["root"]) = (id.as_str().into(), root.as_str().into());
        data.push(entry);
    }
    page["data"] = data.into();
    page.to_string()
}

/// The syncer with its server, both on free ports.
struct Scene {
    server: Arc<Server>,
    folder: tempfile::TempDir,
    port: u16,
    page: String,
    shutdown: CancellationToken,
}

impl Scene {
    async fn start(server: Arc<Server>) -> Self {
        let app = axum::Router::new()
            .route("/health", get(|| async {}))
            .route("/v1/models", get(models))
            .route("/v1/load_lora_adapter", post(load))
            .route("/v1/unload_lora_adapter", post(unload))
            .with_state(server.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("configmap.yaml");
        let args = Line::parse_from(["x", "--reconcile-trigger=1", "--config", config.to_str().unwrap()]).args;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(run_on(listener, args, shutdown.clone()));
        Self { server, folder, port, page, shutdown }
    }

    /// Swaps the file as kubelet does: a new folder behind the `..data` link.
    fn write(&self, version: &str, lists: &str) {
        let root = self.folder.path();
        std::fs::create_dir(root.join(version)).unwrap();
        let text = format!("vLLMLoRAConfig: {{host: 127.0.0.1, port: {}, {lists}}}\n", self.port);
        std::fs::write(root.join(version).join("configmap.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, root.join("..next")).unwrap();
        std::fs::rename(root.join("..next"), root.join("..data")).unwrap();
        if !root.join("configmap.yaml").is_symlink() {
            std::os::unix::fs::symlink("..data/configmap.yaml", root.join("configmap.yaml")).unwrap();
        }
    }

    async fn get(&self, path: &str) -> String {
        let mut answer = reqwest::get(format!("{}{path}", self.page)).await.unwrap();
        let mut text = answer.status().as_u16().to_string() + "\n";
        while let Some(chunk) = answer.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    }

    async fn until(&self, lines: &[&str]) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let page = self.get("/metrics").await;
            if lines.iter().all(|line| page.lines().any(|found| found == *line)) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "wanted {lines:?} in\n{page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn source(&self, id: &str) -> Option<String> {
        self.server.adapters.lock().unwrap().get(id).cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_follow_the_file_through_change_error_mending_and_server_restart() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Arc::new(Server::default());
    server.adapters.lock().unwrap().insert("old".to_owned(), "/old".to_owned());
    let scene = Scene::start(server).await;
    assert!(scene.get("/readyz").await.starts_with("503\nno good configuration"));

    let lists = "ensureExist: {models: [{id: a, source: /a}, {id: bad, source: /no/such}]}, ensureNotExist: {models: [{id: old}]}";
    scene.write("..1", lists);
    scene
        .until(&[
            r#"lora_syncer_adapter_status{adapter_name="a"} 1"#,
            r#"lora_syncer_adapter_status{adapter_name="bad"} 0"#,
            r#"lora_syncer_adapter_status{adapter_name="old"} 0"#,
            r#"lora_syncer_errors_total{adapter_name="bad",reason="not_found"} 1"#,
        ])
        .await;
    assert_eq!((scene.source("a"), scene.source("old")), (Some("/a".into()), None));

    scene.write("..2", "ensureExist: {models: [{id: a}]}");
    scene.until(&["lora_syncer_config_valid 0", "lora_syncer_config_generation 1"]).await;
    assert_eq!(scene.source("a"), Some("/a".into()));

    scene.write("..3", "ensureExist: {models: [{id: a, source: /a2}]}");
    scene.until(&["lora_syncer_config_valid 1", r#"lora_syncer_reconciles_total{result="ok"} 1"#]).await;
    assert_eq!(scene.source("a"), Some("/a2".into()));
    assert!(scene.get("/readyz").await.starts_with("200"));

    scene.server.adapters.lock().unwrap().clear();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while scene.source("a").is_none() {
        assert!(std::time::Instant::now() < deadline, "a restarted server was not healed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.shutdown.cancel();
}
