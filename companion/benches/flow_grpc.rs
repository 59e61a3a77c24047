//! How fast the service is over real gRPC, what a waiting request costs, how soon freed room is used.
//!
//! The server is a second process (this program again), so that its processor time and memory are its own; rates are
//! given per second of the server's processor time, which a busy machine does not bend. Memory is measured beside that of
//! the least there can be: an HTTP/2 server that keeps nothing but the way to answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[path = "../tests/flow_client/mod.rs"]
mod flow_client;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flow_client::{Client, config, question, start};
use tally_core::admission::{Completed, Outcome, ReportRequest};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `tallyd`'s settings of it but the sampling, for the server's process.
const ALLOCATOR_SETTINGS: &str = "dirty_decay_ms:500,muzzy_decay_ms:0";

const SERVE: &str = "TALLY_BENCH_FLOW_SERVE";
const CONNECTIONS: u64 = 4;
const CALLS_EACH: u64 = 64;
const ADMISSIONS: u64 = 200_000;
const WAITING: u64 = 100_000;
const RELEASES: usize = 5_000;
/// As a plan: the least there can be.
const BARE: &str = "bare";
/// Freed pages go back meanwhile.
const SETTLED: Duration = Duration::from_secs(5);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if let Ok(plan) = std::env::var(SERVE) {
        runtime.block_on(async {
            if plan == BARE {
                return bare().await;
            }
            let server = start(&config(&plan)).await;
            tell(server.address(), || server.flow.gate().waiting()).await;
        });
        return;
    }
    println!("| what | value |\n|---|---|");
    // Names of parts; none is all. Cargo adds an option of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    runtime.block_on(async {
        if is_wanted("rate") {
            rate().await;
        }
        if is_wanted("release") {
            release().await;
        }
        if is_wanted("memory") {
            memory("tallyd", "{defaultRequestTTL: 10m, saturationDetector: {maxConcurrency: 1}}").await;
            memory("a bare HTTP/2 server", BARE).await;
        }
    });
}

/// Prints where the server listens, then again and again how many wait: the other process cannot see that, and must not
/// guess it from the memory that it measures.
async fn tell(address: SocketAddr, waiting: impl Fn() -> u64) {
    println!("{address}");
    loop {
        println!("{}", waiting());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes calls and answers none: of each it keeps what an answer needs, and the library its stream.
async fn bare() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let parked = Arc::new(AtomicU64::new(0));
    let held = parked.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let held = held.clone();
            tokio::spawn(async move {
                let mut settings = h2::server::Builder::new();
                settings.max_concurrent_streams(1 << 20).data_frame_budget(16 << 20);
                let mut connection = settings.handshake::<_, bytes::Bytes>(socket).await.unwrap();
                let mut calls = Vec::new();
                while let Some(call) = connection.accept().await {
                    calls.push(call.unwrap().1);
                    held.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    tell(address, || parked.load(Ordering::Relaxed)).await;
}

struct Peer {
    process: Child,
    address: SocketAddr,
    waiting: Arc<AtomicU64>,
}

impl Peer {
    fn start(plan: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut process = Command::new(program)
            .env(SERVE, plan)
            .env("MALLOC_CONF", ALLOCATOR_SETTINGS)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = output.next().unwrap().unwrap().parse().unwrap();
        let waiting = Arc::new(AtomicU64::new(0));
        let told = waiting.clone();
        std::thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                told.store(line.parse().unwrap(), Ordering::Relaxed);
            }
        });
        Self { process, address, waiting }
    }

    /// How many wait, as the server said last.
    fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Processor time so far, all threads, user and system: fields 14 and 15 in ticks of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// `VmRSS` is what is resident, `VmHWM` the most that ever was.
    fn memory_bytes(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|found| found.starts_with(line)).unwrap();
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
    let (mut took, mut around) = (Vec::new(), Vec::new());
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
        let asked = Instant::now();
        client.call_unknown().await;
        around.push(asked.elapsed());
    }
    quantiles("report sent to waiting request's answer", took);
    quantiles("the way alone: a call that is refused at once", around);
}

fn quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let at = (took.len() as f64 * share) as usize;
        println!("| {what}, {name} of {} | {:.3} ms |", took.len(), took[at].as_secs_f64() * 1e3);
    }
}

async fn memory(who: &str, plan: &str) {
    let peer = Peer::start(plan);
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect(peer.address).await);
    }
    let before = peer.memory_bytes("VmRSS");
    // One more than wait: it is let go.
    for number in 0..=WAITING {
        let client = clients[(number % CONNECTIONS) as usize].clone();
        let mut question = question(number + 1);
        question.fairness_id = format!("tenant-{}", number % 100);
        tokio::spawn(async move { client.ask(question).await });
    }
    let end = Instant::now() + Duration::from_secs(60);
    while peer.waiting() < WAITING {
        if Instant::now() > end {
            println!("| {who}: memory for {WAITING} waiting | not measured: only {} came to wait |", peer.waiting());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let row = |when: &str, bytes: u64| {
        let grown = bytes - before;
        println!(
            "| {who}: memory for {WAITING} waiting, {when} | {:.1} MB, {} bytes each |",
            grown as f64 / 1e6,
            grown / WAITING
        );
    };
    row("when the last has come", peer.memory_bytes("VmRSS"));
    row("the most meanwhile", peer.memory_bytes("VmHWM"));
    tokio::time::sleep(SETTLED).await;
    row("after a while", peer.memory_bytes("VmRSS"));
}
