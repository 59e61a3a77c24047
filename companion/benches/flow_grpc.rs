//! How fast the service is over real gRPC, what a waiting request costs, how soon freed room is used.
//!
//! The server is a second process (this program again), so that its processor time and memory are its own; rates are
//! given per second of the server's processor time, which a busy machine does not bend.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[path = "../tests/flow_client/mod.rs"]
mod flow_client;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flow_client::{Client, config, question, start};
use tally_core::admission::{Completed, Outcome, ReportRequest};

const SERVE: &str = "TALLY_BENCH_FLOW_SERVE";
const CONNECTIONS: u64 = 4;
const CALLS_EACH: u64 = 64;
const ADMISSIONS: u64 = 200_000;
const WAITING: u64 = 100_000;
const RELEASES: usize = 5_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if let Ok(plan) = std::env::var(SERVE) {
        runtime.block_on(async {
            let server = start(&config(&plan)).await;
            println!("{}", server.address());
            // The other process cannot see how many wait, and must not guess it from the memory that it measures.
            loop {
                println!("{}", server.flow.gate().waiting());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    println!("| what | value |\n|---|---|");
    runtime.block_on(async {
        rate().await;
        release().await;
        memory().await;
    });
}

struct Peer {
    process: Child,
    address: SocketAddr,
    waiting: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Peer {
    fn start(plan: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program).env(SERVE, plan).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = output.next().unwrap().unwrap().parse().unwrap();
        let waiting = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let told = waiting.clone();
        std::thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                told.store(line.parse().unwrap(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        Self { process, address, waiting }
    }

    /// How many wait, as the server said last.
    fn waiting(&self) -> u64 {
        self.waiting.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Processor time so far, all threads, user and system: fields 14 and 15 in ticks of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Four callers with 64 calls open each; ends are reported in batches of up to 64, as a filter's tick does.
async fn rate() {
    let peer = Peer::start("saturationDetector: {maxConcurrency: 1000000}");
    let (start, cpu) = (Instant::now(), peer.cpu());
    let mut callers = tokio::task::JoinSet::new();
    for reporter in 1..=CONNECTIONS {
        let client = Client::connect(peer.address).await;
        callers.spawn(async move {
            let reports = client.report();
            let mut calls = tokio::task::JoinSet::new();
            for lane in 0..CALLS_EACH {
                let (client, reports) = (client.clone(), reports.clone());
                calls.spawn(async move {
                    let mut completed = Vec::new();
                    for round in 0..ADMISSIONS / CONNECTIONS / CALLS_EACH {
                        let mut question = question(1 + lane + round * CALLS_EACH);
                        (question.reporter, question.fairness_id) = (reporter, format!("tenant-{lane}"));
                        let request = question.request;
                        let answer = client.ask(question).await.unwrap();
                        assert_eq!(answer.outcome(), Outcome::Dispatched);
                        completed.push(Completed { request, prompt_tokens: 100, output_tokens: 100 });
                        if completed.len() == 64 {
                            let completed = std::mem::take(&mut completed);
                            reports.send(ReportRequest { reporter, completed, running: None }).await.unwrap();
                        }
                    }
                });
            }
            calls.join_all().await;
        });
    }
    callers.join_all().await;
    let admissions = (ADMISSIONS / CONNECTIONS / CALLS_EACH * CONNECTIONS * CALLS_EACH) as f64;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), (peer.cpu() - cpu).as_secs_f64());
    println!("| admissions per second of the server's processor time | {:.0} |", admissions / cpu);
    println!("| admissions per second on the clock, client on the same machine | {:.0} |", admissions / wall);
}

/// From sending the report that frees a place to reading the answer that uses it: two hops over the socket.
async fn release() {
    let peer = Peer::start("saturationDetector: {maxConcurrency: 1}");
    let client = Client::connect(peer.address).await;
    let reports = client.report();
    client.ask(question(1)).await.unwrap();
    let mut took = Vec::new();
    for number in 2..RELEASES as u64 + 2 {
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.ask(question(number)).await.unwrap() }
        });
        // Long enough for it to wait; one whose own time says that it did not is left out below.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let end = Completed { request: number - 1, prompt_tokens: 0, output_tokens: 0 };
        let freed = Instant::now();
        reports.send(ReportRequest { reporter: 9, completed: vec![end], running: None }).await.unwrap();
        if waiting.await.unwrap().waited_nanos > 1_000_000 {
            took.push(freed.elapsed());
        }
    }
    took.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let at = (took.len() as f64 * share) as usize;
        println!(
            "| report sent to waiting request's answer, {name} of {} | {:.3} ms |",
            took.len(),
            took[at].as_secs_f64() * 1e3
        );
    }
}

async fn memory() {
    let peer = Peer::start("{defaultRequestTTL: 0, saturationDetector: {maxConcurrency: 1}}");
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(peer.address).await);
    }
    clients[0].ask(question(1)).await.unwrap();
    let before = peer.resident_bytes();
    for number in 0..WAITING {
        let client = clients[(number % CONNECTIONS) as usize].clone();
        let mut question = question(number + 2);
        question.fairness_id = format!("tenant-{}", number % 100);
        tokio::spawn(async move { client.ask(question).await });
    }
    let end = Instant::now() + Duration::from_secs(60);
    while peer.waiting() < WAITING {
        if Instant::now() > end {
            println!("| server memory for {WAITING} waiting | not measured: only {} came to wait |", peer.waiting());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grown = peer.resident_bytes() - before;
    println!("| server memory for {WAITING} waiting | {:.1} MB |", grown as f64 / 1e6);
    println!("| the same for each | {} bytes |", grown / WAITING);
}
