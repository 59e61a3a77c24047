//! Flow control in a real `tallyd serve`: killed and restarted under load, and told priorities by a real Kubernetes API.

// Helpers of a test may stop it too; clippy only knows the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tally_core::admission::{
    Completed, ENQUEUE_AND_WAIT, EnqueueAndWaitRequest, EnqueueAndWaitResponse, Outcome, REPORT, ReportRequest,
    ReportResponse, Running, SERVICE,
};
use tally_integration::companion::Companion;
use tally_integration::kube::{Kube, programs};
use tally_integration::page::Page;
use tally_integration::tools::{free_port, poll};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

const SOON: Duration = Duration::from_secs(20);
const FAMILY: &str = "inference_extension_flow_control";

fn companion(ports: (u16, u16), flow_control: &str) -> Companion {
    let (flow, health) = ports;
    let config = format!(
        "listen: {{address: '127.0.0.1:0', flow: '127.0.0.1:{flow}', flow_health: '127.0.0.1:{health}'}}\n\
         auth: {{mode: none}}\nflow_control: {flow_control}\n"
    );
    Companion::start(&config, &[]).unwrap()
}

/// What an Envoy with Tally's filter does, without Envoy: asks, runs, reports, and fails open.
#[derive(Clone)]
struct Filter {
    channel: Channel,
    reporter: u64,
    running: Arc<Mutex<BTreeSet<u64>>>,
    ended: mpsc::Sender<Completed>,
}

impl Filter {
    fn start(port: u16, reporter: u64) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let (ended, receiver) = mpsc::channel(1_024);
        let filter = Self { channel: endpoint.connect_lazy(), reporter, running: Arc::default(), ended };
        tokio::spawn(filter.clone().report(receiver));
        filter
    }

    async fn ask(&self, question: EnqueueAndWaitRequest) -> Result<EnqueueAndWaitResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::try_from(format!("/{SERVICE}/{ENQUEUE_AND_WAIT}")).unwrap();
        let codec: ProstCodec<EnqueueAndWaitRequest, EnqueueAndWaitResponse> = ProstCodec::default();
        grpc.unary(Request::new(question), path, codec).await.map(tonic::Response::into_inner)
    }

    fn question(&self, request: u64) -> EnqueueAndWaitRequest {
        let fairness_id = format!("tenant-{}", request % 13);
        let priority = Some((request % 3) as i32 - 1);
        EnqueueAndWaitRequest { fairness_id, priority, reporter: self.reporter, request, ..Default::default() }
    }

    /// What has ended as it ends, and all that runs whenever the stream is opened and now and then.
    async fn report(self, mut ended: mpsc::Receiver<Completed>) {
        loop {
            let (sender, receiver) = mpsc::channel(64);
            let mut grpc = Grpc::new(self.channel.clone());
            let stream = async {
                grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let path = http::uri::PathAndQuery::try_from(format!("/{SERVICE}/{REPORT}")).unwrap();
                let codec: ProstCodec<ReportRequest, ReportResponse> = ProstCodec::default();
                grpc.client_streaming(Request::new(ReceiverStream::new(receiver)), path, codec).await.map(|_| ())
            };
            let mut list = tokio::time::interval(Duration::from_millis(500));
            let send = async {
                loop {
                    let mut report = ReportRequest { reporter: self.reporter, ..Default::default() };
                    tokio::select! {
                        completed = ended.recv() => match completed {
                            Some(completed) => report.completed.push(completed),
                            None => return true,
                        },
                        _ = list.tick() => {
                            let requests = self.running.lock().unwrap().iter().copied().collect();
                            report.running = Some(Running { requests });
                        }
                    }
                    if sender.send(report).await.is_err() {
                        return false;
                    }
                }
            };
            tokio::select! {
                _ = stream => {}
                is_over = send => if is_over { return },
            }
            // A dead companion is tried again at the pace of a filter's tick.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Entered, decided and waiting, as one page says it.
fn books(page: &Page) -> (f64, f64, f64) {
    (
        page.total(&format!("{FAMILY}_request_enqueue_duration_seconds_count"), &[]),
        page.total(&format!("{FAMILY}_requests_total"), &[]),
        page.total(&format!("{FAMILY}_queue_size"), &[]),
    )
}

/// Clients ask, some leave, the companion is killed in the middle and started again.
struct Load {
    asked: u64,
    answered: AtomicU64,
    unanswered: AtomicU64,
    left: AtomicU64,
}

async fn one_request(filter: &Filter, request: u64, load: &Load) {
    let call = filter.ask(filter.question(request));
    // Every seventh client leaves at once, wherever its question is then.
    let patience = if request.is_multiple_of(7) { Duration::from_millis(request % 40) } else { SOON * 3 };
    match tokio::time::timeout(patience, call).await {
        Err(_) => {
            load.left.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Ok(Ok(answer)) => {
            assert_eq!(answer.outcome(), Outcome::Dispatched);
            load.answered.fetch_add(1, Ordering::Relaxed);
        }
        // As `fail_open`: it goes all the same.
        Ok(Err(_)) => {
            load.unanswered.fetch_add(1, Ordering::Relaxed);
        }
    }
    filter.running.lock().unwrap().insert(request);
    tokio::time::sleep(Duration::from_millis(3)).await;
    filter.running.lock().unwrap().remove(&request);
    filter.ended.send(Completed { request, prompt_tokens: 9, output_tokens: 9 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_survive_a_companion_that_is_killed_and_none_is_lost_or_decided_twice() {
    let ports = (free_port().unwrap(), free_port().unwrap());
    let plan = "{saturationDetector: {maxConcurrency: 16}, defaultRequestTTL: 60s}";
    let mut tallyd = Some(companion(ports, plan));
    let load = Arc::new(Load { asked: 5_000, answered: 0.into(), unanswered: 0.into(), left: 0.into() });
    let mut envoys = tokio::task::JoinSet::new();
    for reporter in 1..=4 {
        let (filter, load) = (Filter::start(ports.0, reporter), load.clone());
        envoys.spawn(async move {
            let open = Arc::new(Semaphore::new(100));
            let mut requests = tokio::task::JoinSet::new();
            for request in 1..=load.asked / 4 {
                let place = open.clone().acquire_owned().await.unwrap();
                let (filter, load) = (filter.clone(), load.clone());
                requests.spawn(async move {
                    one_request(&filter, request, &load).await;
                    drop(place);
                });
            }
            requests.join_all().await;
            filter
        });
    }
    let answered = || load.answered.load(Ordering::Relaxed);
    let mut before = 0;
    let mut pages = 0;
    let mut is_killed = false;
    while load.left.load(Ordering::Relaxed) + load.unanswered.load(Ordering::Relaxed) + answered() < load.asked {
        if !is_killed && answered() > 1_000 {
            is_killed = true;
            before = answered();
            // SIGKILL, in full traffic; then again at the same port.
            drop(tallyd.take());
            assert!(poll(SOON, || std::net::TcpListener::bind(("127.0.0.1", ports.0)).ok()).is_some());
            tallyd = Some(companion(ports, plan));
        }
        let (entered, decided, waiting) = books(&tallyd.as_ref().unwrap().page().unwrap());
        assert_eq!(entered - decided, waiting, "at every instant");
        pages += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut filters = Vec::new();
    while let Some(filter) = envoys.join_next().await {
        filters.push(filter.unwrap());
    }
    println!(
        "{pages} pages; before the kill {before} answered; in all {} answered, {} failed open, {} left",
        answered(),
        load.unanswered.load(Ordering::Relaxed),
        load.left.load(Ordering::Relaxed)
    );
    assert!(is_killed && pages > 10);
    // Each caller has at most so many questions open at the kill, and more fail until the companion is back.
    assert!(load.unanswered.load(Ordering::Relaxed) > 0);
    let quiet = poll(SOON, || (books(&tallyd.as_ref()?.page().ok()?).2 == 0.0).then_some(()));
    assert!(quiet.is_some(), "nobody waits for ever");
    // No place is lost: sixteen may run, and sixteen do, once the lists have told what does not.
    let mut places = 0;
    let all = tokio::time::timeout(SOON, async {
        for request in 10_001..=10_016 {
            let answer = filters[0].ask(filters[0].question(request)).await.unwrap();
            assert_eq!(answer.outcome(), Outcome::Dispatched);
            filters[0].running.lock().unwrap().insert(request);
            places += 1;
        }
    });
    assert!(all.await.is_ok(), "{places} of 16 places");
    let mut one_more = filters[1].question(20_001);
    one_more.patience_millis = 300;
    assert_eq!(filters[1].ask(one_more).await.unwrap().outcome(), Outcome::EvictedTtl, "and no place is there twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priorities_of_inference_objectives_come_from_the_kubernetes_api_as_they_change() {
    if let Err(reason) = programs() {
        println!("{reason}");
        return;
    }
    let mut kube = Kube::start().unwrap();
    define_objectives(&kube);
    let account = kube.service_account("default", "tallyd", 3600).unwrap();
    let rules = json!([
        { "apiGroups": [GROUP], "resources": ["inferenceobjectives"], "verbs": ["list", "watch"] },
    ]);
    kube.allow("default", "tallyd", "objectives", &rules).unwrap();
    let kubeconfig = kube.folder().join("tallyd.kubeconfig");
    std::fs::write(&kubeconfig, kube.kubeconfig_with(&account).unwrap()).unwrap();
    put(&kube, "POST", "chat", 100);
    let ports = (free_port().unwrap(), free_port().unwrap());
    let watch = format!("{{namespace: default, pool: demo, kubeconfig: {}}}", kubeconfig.display());
    let tallyd = companion(ports, &format!("{{objectives: {{chat: 1, file: 5}}, objectiveWatch: {watch}}}"));
    let filter = Filter::start(ports.0, 1);
    let becomes = async |name: &str, expected: i32| {
        let mut last = None;
        for _ in 0..400 {
            let question = EnqueueAndWaitRequest { objective: name.into(), ..Default::default() };
            last = filter.ask(question).await.ok().map(|answer| answer.priority);
            if last == Some(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(last, Some(expected), "{name}; tallyd says:\n{}", tallyd.log());
    };
    becomes("chat", 100).await;
    becomes("file", 5).await;
    put(&kube, "PUT", "chat", -7);
    becomes("chat", -7).await;
    // The last known priority stays while the API is away, and what changed then is learnt after.
    kube.stop_api();
    becomes("chat", -7).await;
    kube.start_api().unwrap();
    put(&kube, "PUT", "chat", 3);
    becomes("chat", 3).await;
    assert_eq!(kube.call("DELETE", &format!("{PATH}/chat"), None).unwrap().status, 200);
    becomes("chat", 1).await;
}

const GROUP: &str = "inference.networking.x-k8s.io";
const PATH: &str = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/default/inferenceobjectives";

/// The custom resource as far as Tally reads it.
fn define_objectives(kube: &Kube) {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
        "priority": { "type": "integer" },
        "poolRef": { "type": "object", "properties": { "name": { "type": "string" } } },
    } } } });
    let version =
        json!({ "name": "v1alpha2", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("inferenceobjectives.{GROUP}"),
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api-inference-extension" },
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": { "plural": "inferenceobjectives", "singular": "inferenceobjective", "kind": "InferenceObjective" },
            "versions": [version],
        },
    });
    kube.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition).unwrap();
    let served = poll(SOON, || (kube.call("GET", PATH, None).ok()?.status == 200).then_some(()));
    assert!(served.is_some(), "the API serves InferenceObjectives");
}

fn put(kube: &Kube, method: &str, name: &str, priority: i32) {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1alpha2"),
        "kind": "InferenceObjective",
        "metadata": { "name": name },
        "spec": { "priority": priority, "poolRef": { "name": "demo" } },
    });
    let path = if method == "POST" { PATH.to_owned() } else { format!("{PATH}/{name}") };
    if method == "PUT" {
        let found = kube.call("GET", &path, None).unwrap().body;
        object["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
    }
    // After a restart the definition is served a moment later than the rest.
    let done = poll(SOON, || {
        let reply = kube.call(method, &path, Some(&object)).ok()?;
        if method == "PUT" && reply.status != 200 {
            let found = kube.call("GET", &path, None).ok()?.body;
            object["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
        }
        matches!(reply.status, 200 | 201).then_some(())
    });
    assert!(done.is_some(), "{method} {path}");
}
