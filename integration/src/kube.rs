//! A real Kubernetes API: etcd and kube-apiserver as `scripts/kube.sh build` left them, no nodes, no controllers.
//!
//! In: nothing. Out: its address, a kubeconfig of an administrator, requests with their answers. It is always stopped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::tools::{self, Process, poll};

const START: Duration = Duration::from_secs(90);
/// Who may do everything; only this process and its folder know it.
const ADMIN_TOKEN: &str = "tally-test-administrator";

/// A running API server with its store.
#[derive(Debug)]
pub struct Kube {
    /// Its port, HTTPS on 127.0.0.1.
    pub port: u16,
    api: Option<Process>,
    _store: Process,
    store_port: u16,
    folder: TempDir,
}

/// What the API answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: serde_json::Value,
}

/// The programs, or the sentence with which a test says that it was not run.
///
/// # Errors
/// If they have not been built.
pub fn programs() -> Result<PathBuf> {
    let found = Command::new(tools::root().join("scripts/kube.sh")).output().context("scripts/kube.sh")?;
    if !found.status.success() {
        bail!("not run: no kube-apiserver and etcd here (make setup-kube builds them)");
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()))
}

impl Kube {
    /// Starts both and waits until the API is ready.
    ///
    /// # Errors
    /// If they are not built, or do not come up: then with the end of the log.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir()?;
        let tokens = format!("{ADMIN_TOKEN},admin,admin,system:masters\n");
        fs::write(folder.path().join("tokens.csv"), tokens)?;
        make_key(&folder.path().join("sa.key"))?;
        let store_port = tools::free_port()?;
        let store = start_store(&programs, folder.path(), store_port)?;
        let mut kube = Self { port: tools::free_port()?, api: None, _store: store, store_port, folder };
        kube.start_api()?;
        fs::write(kube.kubeconfig(), kube.kubeconfig_with(ADMIN_TOKEN)?)?;
        Ok(kube)
    }

    /// Starts the API server, again if it was stopped: at the same address, with the same content.
    ///
    /// # Errors
    /// If it does not become ready.
    pub fn start_api(&mut self) -> Result<()> {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let log = File::create(self.folder.path().join("api.log"))?;
        let child = tools::child(&programs()?.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.store_port))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"])
            .arg(format!("--cert-dir={}", at("certs")))
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .args(["--service-account-issuer=https://tally.test", "--disable-admission-plugins=ServiceAccount"])
            .arg(format!("--service-account-key-file={}", at("sa.key")))
            .arg(format!("--service-account-signing-key-file={}", at("sa.key")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting kube-apiserver")?;
        self.api = Some(Process(child));
        let ready = poll(START, || {
            if self.api.as_mut().is_none_or(Process::ended) {
                return Some(false);
            }
            // The first roles are written after the server says that it is ready.
            let role = self.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:auth-delegator", None);
            let namespace = self.call("GET", "/api/v1/namespaces/default", None);
            (role.ok()?.status == 200 && namespace.ok()?.status == 200).then_some(true)
        });
        if ready == Some(true) {
            return Ok(());
        }
        let log = fs::read_to_string(self.folder.path().join("api.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        bail!(
            "kube-apiserver did not become ready; the end of its log:\n{}",
            lines.iter().rev().take(20).rev().copied().collect::<Vec<_>>().join("\n")
        );
    }

    /// Stops the API server; the store keeps its content.
    pub fn stop_api(&mut self) {
        self.api = None;
    }

    /// Path of the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// Text of a kubeconfig for the bearer of `token`.
    ///
    /// # Errors
    /// If the server's certificate can't be read.
    pub fn kubeconfig_with(&self, token: &str) -> Result<String> {
        let authority = self.folder.path().join("certs/apiserver.crt");
        fs::metadata(&authority).context("the API server's certificate")?;
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\n\
             users: [{{name: test, user: {{token: {token}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            self.port,
            authority.display()
        ))
    }

    /// A call as the administrator.
    ///
    /// # Errors
    /// If the server can't be reached.
    pub fn call(&self, method: &str, path: &str, body: Option<&serde_json::Value>) -> Result<Reply> {
        self.send(method, path, "application/json", body.map(ToString::to_string).as_deref())
    }

    /// Applies one object in YAML, as `kubectl apply --server-side` does; the path is the object's and names the field
    /// manager, and with `&dryRun=All` nothing is kept.
    ///
    /// # Errors
    /// If the server can't be reached.
    pub fn apply(&self, path: &str, yaml: &str) -> Result<Reply> {
        self.send("PATCH", path, "application/apply-patch+yaml", Some(yaml))
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: Option<&str>) -> Result<Reply> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--insecure", "--request", method]);
        command.args(["--write-out", "\n%{http_code}", "--header", &format!("content-type: {kind}")]);
        command.args(["--header", &format!("authorization: Bearer {ADMIN_TOKEN}")]);
        // In a file: an argument of a program holds 128 KiB at most.
        let file = tempfile::NamedTempFile::new()?;
        if let Some(body) = body {
            fs::write(file.path(), body)?;
            command.arg("--data-binary").arg(format!("@{}", file.path().display()));
        }
        let output = command.arg(format!("https://127.0.0.1:{}{path}", self.port)).output().context("curl")?;
        if !output.status.success() {
            bail!("{method} {path}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, status) = text.rsplit_once('\n').context("an answer with its status")?;
        Ok(Reply { status: status.parse()?, body: serde_json::from_str(body).unwrap_or_default() })
    }

    /// Creates an object; `path` is the collection's.
    ///
    /// # Errors
    /// If the server refuses it: then with its words.
    pub fn create(&self, path: &str, object: &serde_json::Value) -> Result<serde_json::Value> {
        let reply = self.call("POST", path, Some(object))?;
        if reply.status != 201 {
            bail!("POST {path}: {} {}", reply.status, reply.body);
        }
        Ok(reply.body)
    }

    /// A new service account's token, valid for `seconds` (the server takes no less than 600).
    ///
    /// # Errors
    /// If the server refuses.
    pub fn service_account(&self, namespace: &str, name: &str, seconds: u32) -> Result<String> {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        if self.call("GET", &format!("{accounts}/{name}"), None)?.status == 404 {
            self.create(&accounts, &serde_json::json!({ "metadata": { "name": name } }))?;
        }
        let ask = serde_json::json!({ "spec": { "expirationSeconds": seconds } });
        let answer = self.create(&format!("{accounts}/{name}/token"), &ask)?;
        let token = answer.pointer("/status/token").and_then(serde_json::Value::as_str);
        Ok(token.context("a token in the answer")?.to_owned())
    }

    /// Allows a service account what `rules` say, in the whole cluster, and waits until the first of them counts.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn allow(&self, namespace: &str, account: &str, role: &str, rules: &serde_json::Value) -> Result<()> {
        let api = "/apis/rbac.authorization.k8s.io/v1";
        self.create(
            &format!("{api}/clusterroles"),
            &serde_json::json!({ "metadata": { "name": role }, "rules": rules }),
        )?;
        self.create(
            &format!("{api}/clusterrolebindings"),
            &serde_json::json!({
                "metadata": { "name": role },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
                "subjects": [{ "kind": "ServiceAccount", "namespace": namespace, "name": account }],
            }),
        )?;
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let first = |key: &str| rules.pointer(&format!("/0/{key}/0")).cloned();
        let question = match first("nonResourceURLs") {
            Some(path) => serde_json::json!({ "spec": {
                "user": user, "nonResourceAttributes": { "path": path, "verb": first("verbs") },
            } }),
            None => serde_json::json!({ "spec": { "user": user, "resourceAttributes": {
                "group": first("apiGroups"), "resource": first("resources"), "verb": first("verbs"), "namespace": namespace,
            } } }),
        };
        let counts = poll(START, || {
            let answer = self.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &question).ok()?;
            (answer.pointer("/status/allowed")? == true).then_some(())
        });
        counts.with_context(|| format!("{role} does not count"))
    }

    /// The folder with keys and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn start_store(programs: &Path, folder: &Path, port: u16) -> Result<Process> {
    let peers = tools::free_port()?;
    let url = format!("http://127.0.0.1:{port}");
    let child = tools::child(&programs.join("etcd"))
        .arg(format!("--data-dir={}", folder.join("etcd").display()))
        .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peers}"))
        .args(["--unsafe-no-fsync=true", "--log-level=error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("etcd.log"))?)
        .spawn()
        .context("starting etcd")?;
    let store = Process(child);
    if !tools::listening(port, START) {
        bail!("etcd did not come up");
    }
    Ok(store)
}

/// A new key such as service accounts' tokens are signed with.
///
/// # Errors
/// If openssl is not there.
pub fn make_key(path: &Path) -> Result<()> {
    let made = Command::new("openssl")
        .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
        .arg(path)
        .output()
        .context("openssl")?;
    if !made.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}
