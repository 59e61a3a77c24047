//! Whatever an endpoint does: the gauges are right two intervals later, the others are unhurt, and nothing is left over.

#![allow(clippy::unwrap_used, reason = "a test's helper may stop it")]

mod pool;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pool::{Behaviour, Running, Server, VLLM_BUSY, vllm};

const READY: &str = "inference_pool_ready_pods{name=\"p\"}";
const QUEUE: &str = "inference_pool_average_queue_size{name=\"p\"}";
const KV: &str = "inference_pool_average_kv_cache_utilization{name=\"p\"}";
const INTERVAL: Duration = Duration::from_millis(500);
/// Two intervals and what the machine needs for the rest.
const SOON: Duration = Duration::from_millis(1_000 + 600);

/// A pool with the threshold at one interval and a half: two intervals after its last good answer an endpoint is out.
fn config(servers: &[&Server]) -> String {
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    format!(
        "- {{name: p, engine: vllm, discovery: {{static: [\"{}\"]}}, refresh_metrics_interval: 500ms, \
         metrics_staleness_threshold: 750ms, timeout: 300ms, max_body: 1048576}}",
        addresses.join("\",\"")
    )
}

fn errors(running: &Running, reason: &str) -> f64 {
    running.value(&format!("inference_pool_scrape_errors_total{{name=\"p\",reason=\"{reason}\"}}")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_takes_its_endpoint_out_in_time_and_leaves_the_others_alone() {
    let good = Server::start(Behaviour::Page(vllm(2.0, 1.0, 0.5))).await;
    let bad = Server::start(Behaviour::Page(vllm(10.0, 1.0, 0.1))).await;
    let running = Running::start(&config(&[&good, &bad]));
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(6.0)), (KV, Some(0.3))]).await;
    let garbage = "\u{0}\u{1}garbage{{{\n".repeat(1000);
    let faults = [
        ("timeout", Behaviour::Hang),
        ("timeout", Behaviour::Trickle),
        ("too_large", Behaviour::Huge { chunked: false }),
        ("too_large", Behaviour::Huge { chunked: true }),
        ("too_large", Behaviour::Gzip("0".repeat(1 << 22), 0)),
        ("missing_family", Behaviour::Page(garbage)),
        ("parse", Behaviour::Raw(b"\x16\x03\x01garbage, not HTTP at all\r\n\r\n")),
        ("parse", Behaviour::Page("vllm:num_requests_waiting{engine=\"0} 1\n".into())),
        ("parse", Behaviour::Page("vllm:num_requests_waiting NaN\n".into())),
        ("truncated", Behaviour::Half(VLLM_BUSY.into())),
        ("truncated", Behaviour::Page("vllm:num_requests_waiting 1".into())),
        ("truncated", Behaviour::Gzip(VLLM_BUSY.into(), 9)),
        ("truncated", Behaviour::Close),
        ("status", Behaviour::Status(503)),
        ("status", Behaviour::Status(301)),
        ("missing_family", Behaviour::Page("vllm:waiting_of_tomorrow 1\n".into())),
        ("missing_family", Behaviour::Page(String::new())),
    ];
    for (reason, fault) in faults {
        let (before, began) = (errors(&running, reason), Instant::now());
        let name = format!("{fault:.60?}");
        bad.now(fault);
        running.until(&[(READY, Some(1.0)), (QUEUE, Some(2.0)), (KV, Some(0.5))]).await;
        assert!(began.elapsed() < SOON, "{name}: out after {:?}", began.elapsed());
        while errors(&running, reason) <= before {
            assert!(began.elapsed() < SOON, "{name}: expected {reason} in\n{}", running.page());
            tokio::task::yield_now().await;
        }
        let healed = Instant::now();
        bad.now(Behaviour::Page(vllm(10.0, 1.0, 0.1)));
        running.until(&[(READY, Some(2.0)), (QUEUE, Some(6.0)), (KV, Some(0.3))]).await;
        assert!(healed.elapsed() < SOON, "{name}: back after {:?}", healed.elapsed());
    }
    // Never two at once, whatever happened.
    assert!(bad.most_open.load(Ordering::SeqCst) <= 2, "an old connection may close while the next one opens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fresh_endpoint_ready_pods_is_zero_and_averages_are_absent() {
    let server = Server::start(Behaviour::Page(vllm(3.0, 1.0, 0.5))).await;
    let running = Running::start(&config(&[&server]));
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(3.0))]).await;
    let per_pod = format!("inference_pool_per_pod_queue_size{{name=\"p\",model_server_pod=\"{}\"}}", server.address);
    let age = format!("inference_pool_sample_age_seconds{{name=\"p\",model_server_pod=\"{}\"}}", server.address);
    assert_eq!(running.value(&per_pod), Some(3.0));
    server.now(Behaviour::Hang);
    running.until(&[(READY, Some(0.0)), (QUEUE, None), (KV, None), (&per_pod, None)]).await;
    assert!(running.value(&age) >= Some(0.75), "the age of what is gone is still told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_nobody_serves_is_a_connect_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let running = Running::start(&format!("- {{name: p, discovery: {{static: [\"{address}\"]}}}}"));
    running.until(&[(READY, Some(0.0)), (QUEUE, None)]).await;
    let deadline = Instant::now() + pool::DEADLINE;
    while errors(&running, "connect") < 1.0 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_leaves_takes_its_series_its_task_and_its_connection_along() {
    let stays = Server::start(Behaviour::Page(vllm(2.0, 1.0, 0.5))).await;
    let leaves = Server::start(Behaviour::Page(vllm(4.0, 1.0, 0.5))).await;
    let hangs = Server::start(Behaviour::Hang).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, servers: &[&Server]| {
        // As a ConfigMap volume does it: a new folder, and a symlink swapped onto it.
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let text: String = servers.iter().map(|server| format!("{}\n", server.address)).collect();
        std::fs::write(folder.path().join(name).join("endpoints"), text).unwrap();
        std::os::unix::fs::symlink(name, folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), folder.path().join("data")).unwrap();
    };
    write("one", &[&stays, &leaves, &hangs]);
    let file = folder.path().join("data/endpoints");
    let running = Running::start(&format!("- {{name: p, discovery: {{file: \"{}\"}}}}", file.display()));
    running.until(&[(READY, Some(2.0)), (QUEUE, Some(3.0))]).await;
    let tasks = running.tracker.len();
    write("two", &[&stays]);
    running.until(&[(READY, Some(1.0)), (QUEUE, Some(2.0))]).await;
    for gone in [&leaves, &hangs] {
        assert!(!running.page().contains(&gone.address.to_string()), "{}", running.page());
        let deadline = Instant::now() + pool::DEADLINE;
        while gone.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < deadline, "the connection is still open");
            tokio::task::yield_now().await;
        }
    }
    let deadline = Instant::now() + pool::DEADLINE;
    while running.tracker.len() > tasks - 2 {
        assert!(Instant::now() < deadline, "{} tasks of {tasks}", running.tracker.len());
        tokio::task::yield_now().await;
    }
    // A file that is gone for a while changes nothing, and neither does one with a bad line.
    std::fs::write(&file, "not an endpoint\n").unwrap();
    let asked = stays.asked();
    while stays.asked() < asked + 30 {
        assert_eq!(running.value(READY), Some(1.0));
        tokio::time::timeout(INTERVAL / 10, std::future::pending::<()>()).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_every_task_even_of_a_hanging_endpoint() {
    let hangs = Server::start(Behaviour::Hang).await;
    let running = Running::start(&config(&[&hangs]));
    let deadline = Instant::now() + pool::DEADLINE;
    while hangs.asked() == 0 {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    running.tracker.close();
    tokio::time::timeout(pool::DEADLINE, running.tracker.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_endpoint_is_in_whenever_its_last_answers_were_good() {
    let flaps = Server::start(Behaviour::Page(vllm(1.0, 0.0, 0.0))).await;
    let running = Running::start(&config(&[&flaps]));
    for round in 0..4 {
        let waiting = f64::from(round);
        flaps.now(Behaviour::Page(vllm(waiting, 0.0, 0.0)));
        let began = Instant::now();
        running.until(&[(READY, Some(1.0)), (QUEUE, Some(waiting))]).await;
        assert!(began.elapsed() < SOON, "in after {:?}", began.elapsed());
        flaps.now(if round % 2 == 0 { Behaviour::Close } else { Behaviour::Status(500) });
        let began = Instant::now();
        running.until(&[(READY, Some(0.0)), (QUEUE, None)]).await;
        assert!(began.elapsed() < SOON, "out after {:?}", began.elapsed());
    }
}
