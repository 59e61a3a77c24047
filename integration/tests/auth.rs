//! Who may read the pages, decided by a real Kubernetes API server.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tally_integration::client::{Answer, Request};
use tally_integration::companion::Companion;
use tally_integration::kube::{Kube, programs};
use tally_integration::tools::poll;

const SOON: Duration = Duration::from_secs(15);

/// A cluster with tallyd's own account and three scrapers; `None`, with the reason printed, where there is no API server.
fn cluster() -> Option<Cluster> {
    if let Err(reason) = programs() {
        println!("{reason}");
        return None;
    }
    let kube = Kube::start().unwrap();
    let own = kube.service_account("default", "tallyd", 3600).unwrap();
    let reviews = json!([
        { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] },
    ]);
    kube.allow("default", "tallyd", "tallyd", &reviews).unwrap();
    let config = kube.folder().join("tallyd.kubeconfig");
    std::fs::write(&config, kube.kubeconfig_with(&own).unwrap()).unwrap();
    let [scraper, profiler, stranger] =
        ["scraper", "profiler", "stranger"].map(|name| kube.service_account("default", name, 3600).unwrap());
    let metrics = json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }]);
    kube.allow("default", "scraper", "metrics-reader", &metrics).unwrap();
    let profiles = json!([{ "nonResourceURLs": ["/metrics", "/debug/pprof/*"], "verbs": ["get"] }]);
    kube.allow("default", "profiler", "profile-reader", &profiles).unwrap();
    Some(Cluster { kube, scraper, profiler, stranger })
}

struct Cluster {
    kube: Kube,
    scraper: String,
    profiler: String,
    stranger: String,
}

impl Cluster {
    fn companion(&self, cache: &str) -> Companion {
        let kubeconfig = self.kube.folder().join("tallyd.kubeconfig");
        Companion::start(
            &format!(
                "listen: {{address: '127.0.0.1:0'}}\nauth: {{mode: kubernetes, kubeconfig: {}, cache: {cache}}}\n",
                kubeconfig.display()
            ),
            &["--log-level", "info,tallyd=debug"],
        )
        .unwrap()
    }
}

fn said(answer: &Answer) -> (u16, String) {
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

fn ask(companion: &Companion, method: &str, path: &str, authorization: &str) -> (u16, String) {
    let request = Request::bare(method, path).header("connection", "close").header("authorization", authorization);
    said(&request.send(companion.port).unwrap())
}

/// A token as the cluster's own, but with this end and key.
fn token(key: &Path, uid: &str, lives_for: i64) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let claims = json!({
        "iss": "https://tally.test", "aud": ["https://tally.test"], "sub": "system:serviceaccount:default:scraper",
        "iat": now - 7200, "nbf": now - 7200, "exp": now + lives_for,
        "kubernetes.io": { "namespace": "default", "serviceaccount": { "name": "scraper", "uid": uid } },
    });
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "alg": "ES256", "typ": "JWT" })), encode(&claims));
    let message = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(message.path(), &signed).unwrap();
    let output =
        Command::new("openssl").args(["dgst", "-sha256", "-sign"]).arg(key).arg(message.path()).output().unwrap();
    assert!(output.status.success());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(raw_signature(&output.stdout)))
}

/// The two numbers of a DER signature, 32 bytes each, as a JWT wants them.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut at = 2;
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number = &der[at + 2..at + 2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        raw.extend(std::iter::repeat_n(0, 32 - number.len()));
        raw.extend_from_slice(number);
        at += 2 + length;
    }
    raw
}

#[test]
fn each_kind_of_caller_gets_the_answer_that_epps_users_expect() {
    let Some(cluster) = cluster() else { return };
    let companion = cluster.companion("{}");
    let unauthorized = (401, "Unauthorized\n".to_owned());
    let denied = |name: &str| (403, format!("Authorization denied for user system:serviceaccount:default:{name}\n"));
    let bearer = |token: &str| format!("Bearer {token}");

    assert_eq!(said(&companion.get("/metrics", None).unwrap()), unauthorized, "absent");
    for malformed in ["Bearer", "Bearer not-a-token", "Basic c2NyYXBlcjp4", &cluster.scraper, "Bearer a b"] {
        assert_eq!(ask(&companion, "GET", "/metrics", malformed), unauthorized, "{malformed}");
    }
    let key = cluster.kube.folder().join("sa.key");
    let account = cluster.kube.call("GET", "/api/v1/namespaces/default/serviceaccounts/scraper", None).unwrap().body;
    let uid = account.pointer("/metadata/uid").and_then(serde_json::Value::as_str).unwrap();
    assert_eq!(ask(&companion, "GET", "/metrics", &bearer(&token(&key, uid, 3600))).0, 200, "the same, not expired");
    assert_eq!(ask(&companion, "GET", "/metrics", &bearer(&token(&key, uid, -60))), unauthorized, "expired");
    let foreign = cluster.kube.folder().join("foreign.key");
    tally_integration::kube::make_key(&foreign).unwrap();
    assert_eq!(ask(&companion, "GET", "/metrics", &bearer(&token(&foreign, uid, 3600))), unauthorized, "foreign");

    let (status, page) = ask(&companion, "GET", "/metrics", &bearer(&cluster.scraper));
    assert!(status == 200 && page.contains("inference_extension_info{"), "{status} {page}");
    assert_eq!(ask(&companion, "GET", "/metrics", &bearer(&cluster.stranger)), denied("stranger"), "unauthorised");
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(
            ask(&companion, method, "/metrics", &bearer(&cluster.scraper)),
            denied("scraper"),
            "wrong verb {method}"
        );
    }
    assert_eq!(
        ask(&companion, "HEAD", "/metrics", &bearer(&cluster.scraper)).0,
        403,
        "EPP asks for the verb head, too"
    );
    for token in [&cluster.scraper, &cluster.profiler, &cluster.stranger] {
        assert!(!companion.log().contains(token.as_str()), "a token is in the log");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(companion.get(path, None).unwrap().status, 200, "{path} is for everybody");
    }
}

#[test]
fn without_the_api_kept_answers_count_until_they_run_out_and_others_get_503_with_the_cause_in_the_log() {
    let Some(mut cluster) = cluster() else { return };
    let companion = cluster.companion("{token: 6s, allow: 6s}");
    let status = |token: &str| companion.get("/metrics", Some(token)).unwrap().status;
    assert_eq!(status(&cluster.scraper), 200);
    cluster.kube.stop_api();
    assert_eq!(
        said(&companion.get("/metrics", Some(&cluster.profiler)).unwrap()),
        (503, "Authorization cannot be checked at the moment\n".to_owned())
    );
    assert!(
        companion.log().contains("cannot check who may read") && companion.log().contains("TokenReview"),
        "{}",
        companion.log()
    );
    assert_eq!(status(&cluster.scraper), 200, "kept");
    assert!(poll(SOON, || (status(&cluster.scraper) == 503).then_some(())).is_some(), "run out");
    cluster.kube.start_api().unwrap();
    assert!(poll(SOON, || (status(&cluster.scraper) == 200).then_some(())).is_some(), "back");
}

#[test]
fn a_right_given_or_taken_counts_when_the_kept_answer_has_run_out() {
    let Some(cluster) = cluster() else { return };
    let companion = cluster.companion("{token: 1s, bad_token: 1s, allow: 2s, deny: 2s}");
    let status = |token: &str| companion.get("/metrics", Some(token)).unwrap().status;
    assert_eq!([status(&cluster.scraper), status(&cluster.stranger)], [200, 403]);
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/metrics-reader";
    assert_eq!(cluster.kube.call("DELETE", binding, None).unwrap().status, 200);
    let metrics = json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }]);
    cluster.kube.allow("default", "stranger", "second-reader", &metrics).unwrap();
    let turned = || (status(&cluster.scraper) == 403 && status(&cluster.stranger) == 200).then_some(());
    assert!(poll(SOON, turned).is_some());
    let account = "/api/v1/namespaces/default/serviceaccounts/stranger";
    assert_eq!(cluster.kube.call("DELETE", account, None).unwrap().status, 200);
    assert!(poll(SOON, || (status(&cluster.stranger) == 401).then_some(())).is_some(), "the account is gone");
}

#[test]
fn a_companion_without_the_right_to_ask_answers_503_and_names_the_way_out() {
    let Some(cluster) = cluster() else { return };
    let kubeconfig = cluster.kube.folder().join("tallyd.kubeconfig");
    std::fs::write(&kubeconfig, cluster.kube.kubeconfig_with(&cluster.stranger).unwrap()).unwrap();
    let companion = cluster.companion("{}");
    assert_eq!(companion.get("/metrics", Some(&cluster.scraper)).unwrap().status, 503);
    assert!(companion.log().contains("tallyd doctor"), "{}", companion.log());
}

/// Exit success, what was printed, what was said beside.
fn doctor(cluster: &Cluster, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(tally_integration::tools::tallyd().unwrap())
        .args(["doctor", "--kubeconfig"])
        .arg(cluster.kube.folder().join("tallyd.kubeconfig"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Applies what the doctor printed, as kubectl would: each document by server-side apply.
fn apply(kube: &Kube, manifests: &str) {
    for document in manifests.split("---\n").filter(|document| !document.is_empty()) {
        let value = |key: &str| document.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let place = match document.lines().find_map(|line| line.strip_prefix("  namespace: ")) {
            Some(namespace) if !value("kind: ").starts_with("Cluster") => format!("namespaces/{namespace}/"),
            _ => String::new(),
        };
        let kind = value("kind: ").to_ascii_lowercase();
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{place}{kind}s/{}?fieldManager=test", value("  name: "));
        let reply = kube.apply(&path, document).unwrap();
        assert!([200, 201].contains(&reply.status), "{document}: {}", reply.body);
    }
}

#[test]
fn the_doctor_names_what_is_missing_and_its_rules_help() {
    let Some(cluster) = cluster() else { return };
    let (well, printed, said) = doctor(&cluster, &["--scraper", "default/scraper"]);
    assert!(!well, "the scraper has no right to profiles: {said}");
    assert!(said.contains("ok       tallyd is system:serviceaccount:default:tallyd"), "{said}");
    assert!(said.contains("ok       tallyd may create tokenreviews.authentication.k8s.io"), "{said}");
    assert!(said.contains("ok       the scraper may get /metrics\n"), "{said}");
    assert!(said.contains("MISSING  the scraper may not get /debug/pprof/*"), "{said}");
    assert!(printed.contains("nonResourceURLs: [\"/debug/pprof/*\"]") && !printed.contains("/metrics"), "{printed}");
    assert!(doctor(&cluster, &["--scraper", "default/profiler"]).0);

    let token = cluster.kube.folder().join("stranger.token");
    std::fs::write(&token, &cluster.stranger).unwrap();
    let arguments = ["--scraper-token", &token.display().to_string(), "--pool-namespace", "default"];
    let (well, printed, said) = doctor(&cluster, &arguments);
    assert!(!well && said.contains("MISSING  tallyd may not watch pods in default"), "{said}");
    apply(&cluster.kube, &printed);
    let cured = poll(SOON, || doctor(&cluster, &arguments).0.then_some(()));
    assert!(cured.is_some(), "{:?}", doctor(&cluster, &arguments));
    let companion = cluster.companion("{}");
    assert_eq!(companion.get("/metrics", Some(&cluster.stranger)).unwrap().status, 200);

    std::fs::write(&token, "not-a-token").unwrap();
    let (well, _, said) = doctor(&cluster, &arguments[..2]);
    assert!(!well && said.contains("the scraper's token is nobody's"), "{said}");
}

#[test]
fn the_doctor_cures_a_tallyd_that_may_not_ask() {
    let Some(cluster) = cluster() else { return };
    let kubeconfig = cluster.kube.folder().join("tallyd.kubeconfig");
    std::fs::write(&kubeconfig, cluster.kube.kubeconfig_with(&cluster.stranger).unwrap()).unwrap();
    let (well, printed, said) = doctor(&cluster, &["--scraper", "default/scraper"]);
    assert!(!well && said.contains("not run  the scraper's rights"), "{said}");
    apply(&cluster.kube, &printed);
    assert!(poll(SOON, || doctor(&cluster, &["--scraper", "default/profiler"]).0.then_some(())).is_some());
    let companion = cluster.companion("{}");
    assert_eq!(companion.get("/metrics", Some(&cluster.scraper)).unwrap().status, 200);
}

#[test]
fn a_right_to_profiles_is_one_of_its_own() {
    let Some(cluster) = cluster() else { return };
    let companion = cluster.companion("{}");
    let status = |path, token: &str| companion.get(path, Some(token)).unwrap().status;
    for path in ["/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/pprof/symbol"] {
        assert_eq!(status(path, &cluster.scraper), 403, "{path}");
        assert_eq!(status(path, &cluster.profiler), 200, "{path}");
    }
    // The live page's files hold nothing; all of its numbers come from behind the guard.
    assert_eq!(companion.get("/", None).unwrap().status, 200);
    assert_eq!(companion.get("/metrics", None).unwrap().status, 401);
}

#[test]
fn the_api_server_of_these_tests_keeps_its_content_over_a_restart() {
    if let Err(reason) = programs() {
        println!("{reason}");
        return;
    }
    let mut kube = Kube::start().unwrap();
    kube.service_account("default", "scraper", 600).unwrap();
    kube.stop_api();
    assert!(kube.call("GET", "/readyz", None).is_err(), "it should be gone");
    kube.start_api().unwrap();
    assert_eq!(kube.call("GET", "/api/v1/namespaces/default/serviceaccounts/scraper", None).unwrap().status, 200);
}
