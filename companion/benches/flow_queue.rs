//! How fast the pure queue, the controller and the gate are in this process. Prints a table of rates.
//!
//! `make bench-flow` runs it beside EPP's queue. Rates of a shared machine mean little alone; ratios of one run do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tally_core::admission::{Completed, EnqueueAndWaitRequest, ReportRequest};
use tallyd::flow::band::{BandPlan, Fairness, Ordering};
use tallyd::flow::config::FlowConfig;
use tallyd::flow::controller::{Ask, Controller};
use tallyd::flow::gate::Gate;
use tallyd::flow::queue::{Entry, Queue, QueuePlan};
use tokio::sync::{mpsc, oneshot};

const WAITING: u64 = 10_000;
const FLOWS: usize = 100;
const PAIRS: u64 = 2_000_000;

fn main() {
    println!("| what | enqueue + dispatch a second |\n|---|---|");
    for fairness in [Fairness::GlobalStrict, Fairness::RoundRobin, Fairness::Weighted] {
        for ordering in [Ordering::Fcfs, Ordering::EarliestDeadline] {
            let seconds = queue(fairness, ordering);
            row(&format!("queue, {fairness:?}, {ordering:?}, {WAITING} in {FLOWS} flows"), PAIRS, seconds);
        }
    }
    let (asked, seconds) = controller();
    row("controller with saturation and running requests", asked, seconds);
    let (asked, seconds) = crowded_gate();
    row(&format!("flow control, {WAITING} callers wait in {FLOWS} flows, one core"), asked, seconds);
    for threads in [1, 2] {
        row(&format!("gate: one lock, {threads} thread(s)"), GATE_PAIRS, by_lock(threads));
        row(&format!("the same by one task, {threads} thread(s)"), GATE_PAIRS, by_task(threads));
    }
}

fn row(what: &str, pairs: u64, seconds: f64) {
    println!("| {what} | {:.0} |", pairs as f64 / seconds);
}

/// A full queue in which each request let go makes room for one that enters the same flow.
fn queue(fairness: Fairness, ordering: Ordering) -> f64 {
    let band = BandPlan { fairness, ordering, max_requests: 0, max_bytes: 0, ceiling: 1.0, weights: Arc::default() };
    let mut queue: Queue<usize> = Queue::new(QueuePlan {
        bands: vec![(0, band.clone())],
        other_negative_bands: band.clone(),
        other_bands: band,
        max_requests: 0,
        max_bytes: 0,
        max_flows: 10_000,
        idle_nanos: u64::MAX,
    });
    let names: Vec<String> = (0..FLOWS).map(|flow| format!("tenant-{flow}")).collect();
    let mut now = 0;
    // Expiries in no order, as with patience by request.
    let enter = |queue: &mut Queue<usize>, at: usize, now: u64| {
        let flow = queue.flow(0, &names[at], now);
        let expires_nanos = now + 60_000_000_000 + now.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 1_000_000_000;
        let entry = Entry { bytes: 1_000, cost: 1, entered_nanos: now, expires_nanos, wish_nanos: u64::MAX };
        queue.enter(flow, entry, at).unwrap();
    };
    for at in 0..WAITING as usize {
        enter(&mut queue, at % FLOWS, at as u64);
    }
    let start = Instant::now();
    for _ in 0..PAIRS {
        now += 1_000;
        let at = queue.dispatch(now, |_| true).unwrap().tag;
        enter(&mut queue, black_box(at), now);
    }
    start.elapsed().as_secs_f64()
}

fn plan(concurrency: u64) -> tallyd::flow::config::FlowPlan {
    let text = format!("saturationDetector: {{detectors: [concurrency-detector], maxConcurrency: {concurrency}}}");
    serde_saphyr::from_str::<FlowConfig>(&text).unwrap().plan().unwrap()
}

/// Everything but the clock and the callers: 100 run, 10,000 wait, one ends, one goes, one enters.
fn controller() -> (u64, f64) {
    let mut controller: Controller<u64> = Controller::new(plan(100).controller);
    let names: Vec<String> = (0..FLOWS).map(|flow| format!("tenant-{flow}")).collect();
    let mut out = Vec::new();
    let mut running = std::collections::VecDeque::new();
    let (mut now, mut number, mut start, mut asked) = (0, 0, None, 0);
    while asked < PAIRS {
        now += 1_000;
        number += 1;
        let ask = Ask {
            fairness_id: &names[number as usize % FLOWS],
            priority: 0,
            bytes: 1_000,
            patience_nanos: 0,
            first_token_nanos: 0,
            reporter: 1,
            request: number,
        };
        let flow = controller.flow(&ask, now);
        controller.enter(&ask, flow, number, now, &mut out);
        if number > WAITING + 100 {
            start.get_or_insert_with(Instant::now);
            asked += 1;
            let request = running.pop_front().unwrap();
            let end = Completed { request, prompt_tokens: 100, output_tokens: 100 };
            controller.completed(1, &[end], now, &mut out);
        }
        running.extend(out.drain(..).map(|decided| decided.tag));
    }
    (asked, start.unwrap().elapsed().as_secs_f64())
}

/// As EPP's flow control is measured: callers that wait, are let go, end at once and come again, all on one thread.
fn crowded_gate() -> (u64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let gate = Arc::new(Gate::new(plan(RUNNING)));
        let let_go = Arc::new(AtomicU64::new(0));
        for request in 1..=WAITING + RUNNING {
            let (gate, let_go) = (gate.clone(), let_go.clone());
            tokio::spawn(async move {
                let fairness_id = format!("tenant-{}", request as usize % FLOWS);
                let question = EnqueueAndWaitRequest { fairness_id, reporter: 1, request, ..Default::default() };
                let end = Completed { request, prompt_tokens: 100, output_tokens: 100 };
                let report = ReportRequest { reporter: 1, completed: vec![end], running: None };
                loop {
                    gate.ask(&question).await;
                    let_go.fetch_add(1, Relaxed);
                    gate.report(&report);
                }
            });
        }
        // As many as wait: everybody has had a turn.
        while let_go.load(Relaxed) < WAITING {
            tokio::task::yield_now().await;
        }
        let (start, before) = (Instant::now(), let_go.load(Relaxed));
        while let_go.load(Relaxed) < before + GATE_PAIRS {
            tokio::task::yield_now().await;
        }
        (let_go.load(Relaxed) - before, start.elapsed().as_secs_f64())
    })
}

const RUNNING: u64 = 100;
const GATE_PAIRS: u64 = 400_000;
const CALLERS: u64 = 64;

/// Callers that ask, are let go at once and ask again, on a runtime of so many threads.
fn run<F: Future<Output = ()> + Send + 'static>(threads: usize, caller: impl Fn() -> F) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS).map(|_| runtime.spawn(caller())).collect();
    runtime.block_on(async {
        for caller in callers {
            caller.await.unwrap();
        }
    });
    start.elapsed().as_secs_f64()
}

fn by_lock(threads: usize) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gate = runtime.block_on(async { Arc::new(Gate::new(plan(1 << 40))) });
    run(threads, || {
        let gate = gate.clone();
        async move {
            for request in 0..GATE_PAIRS / CALLERS {
                let question = EnqueueAndWaitRequest { fairness_id: (request % 100).to_string(), ..Default::default() };
                black_box(gate.ask(&question).await);
                tokio::task::yield_now().await;
            }
        }
    })
}

/// The other way to share a controller: one task owns it and everybody sends it messages. Counts nothing, so it does
/// less than the gate.
fn by_task(threads: usize) -> f64 {
    type Message = (EnqueueAndWaitRequest, oneshot::Sender<u64>);
    let (sender, mut receiver) = mpsc::channel::<Message>(1_024);
    let owner = async move {
        let mut controller: Controller<oneshot::Sender<u64>> = Controller::new(plan(1 << 40).controller);
        let (start, mut out) = (Instant::now(), Vec::new());
        while let Some((question, answer)) = receiver.recv().await {
            let now = u64::try_from(start.elapsed().as_nanos()).unwrap();
            let ask = Ask {
                fairness_id: &question.fairness_id,
                priority: 0,
                bytes: 0,
                patience_nanos: 0,
                first_token_nanos: 0,
                reporter: 0,
                request: 0,
            };
            let flow = controller.flow(&ask, now);
            controller.enter(&ask, flow, answer, now, &mut out);
            for decided in out.drain(..) {
                let _ = decided.tag.send(decided.waited_nanos);
            }
        }
    };
    let owner = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(owner);
    });
    let seconds = run(threads, || ask_by_message(sender.clone()));
    drop(sender);
    owner.join().unwrap();
    seconds
}

async fn ask_by_message(sender: mpsc::Sender<(EnqueueAndWaitRequest, oneshot::Sender<u64>)>) {
    for request in 0..GATE_PAIRS / CALLERS {
        let question = EnqueueAndWaitRequest { fairness_id: (request % 100).to_string(), ..Default::default() };
        let (answer, decided) = oneshot::channel();
        sender.send((question, answer)).await.unwrap();
        black_box(decided.await.unwrap());
        tokio::task::yield_now().await;
    }
}
