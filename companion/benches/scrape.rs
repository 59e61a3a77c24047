//! What a scrape costs, beside other readers, in one run: only the ratios travel to another machine.
//!
//! The model servers are a second process (this program again), so that its processor time is not counted here. Go's
//! numbers come from the program that `TALLY_BENCH_EXPFMT` names; without it they are left out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tally_core::exposition::read::{Line, lines};
use tally_core::exposition::{Format, Writer};
use tallyd::collect::Collect;
use tallyd::model_server::{Engine, Mapping, Page};
use tallyd::pool::{PoolConfig, Pools};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const PAGE: &str = include_str!("../../testdata/scrapes/vllm-busy.prom");
const SERVE: &str = "TALLY_BENCH_SCRAPE_SERVE";
const EXPFMT: &str = "TALLY_BENCH_EXPFMT";
/// As a socket hands a page over.
const PIECE_BYTES: usize = 16 << 10;
const EACH: Duration = Duration::from_secs(2);
const MANY: usize = 1000;

fn main() {
    if std::env::var_os(SERVE).is_some() {
        return runtime(1).block_on(serve());
    }
    println!("page: vllm-busy.prom, {} bytes, {} lines\n", PAGE.len(), PAGE.lines().count());
    readers();
    scrapes();
    many();
}

/// Bytes to values, no network.
fn readers() {
    let mapping = Mapping::new(Engine::Vllm, &Default::default());
    let selective = measure(|| {
        let mut page = Page::new(&mapping);
        PAGE.as_bytes().chunks(PIECE_BYTES).for_each(|piece| page.feed(piece));
        assert_eq!(page.finish().unwrap().sample.waiting, 4.0);
    });
    let every_line = measure(|| {
        let samples = lines(PAGE.as_bytes()).filter(|line| matches!(line, Line::Sample { .. })).count();
        assert!(samples > 400);
    });
    let oracle = measure(|| {
        black_box(openmetrics_parser::prometheus::parse_prometheus(black_box(PAGE)).unwrap());
    });
    println!("| reader | us a page | GB/s | selective is faster |\n|---|---|---|---|");
    let row = |name: &str, nanos: f64| {
        let speed = PAGE.len() as f64 / nanos;
        println!("| {name} | {:.1} | {speed:.3} | {:.1} x |", nanos / 1e3, nanos / selective);
    };
    row("Tally, wanted series only", selective);
    row("Tally, every line", every_line);
    row("openmetrics-parser", oracle);
    match expfmt(&["parse", concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/scrapes/vllm-busy.prom"), "3"]) {
        Some(nanos) => row("Go expfmt", nanos),
        None => println!("\nnot run: Go's expfmt"),
    }
    println!();
}

/// One endpoint, asked as often as can be: processor time of this process for each scrape.
fn scrapes() {
    let server = Server::start();
    println!("| scrape, all in | us of CPU |\n|---|---|");
    let mut ours = 0.0;
    for (name, endpoints, interval, more) in [
        ("Tally, 1 endpoint every 50 ms", 1, "50ms", ""),
        ("Tally, 20 endpoints every 50 ms", 20, "50ms", ""),
        ("Tally, 20 endpoints every 50 ms, gzip", 20, "50ms", ", gzip: true"),
    ] {
        let yaml = config(&server, endpoints, interval, more);
        let nanos = runtime(1).block_on(async {
            let running = Running::start(&yaml);
            running.until_ready(endpoints).await;
            let (before, began) = (running.scrapes(), cpu());
            tokio::time::sleep(EACH * 2).await;
            (cpu() - began).as_nanos() as f64 / (running.scrapes() - before) as f64
        });
        if more.is_empty() {
            ours = nanos;
        }
        println!("| {name} | {:.0} |", nanos / 1e3);
    }
    match expfmt(&["scrape", &format!("http://{}/metrics", server.at(0)), "1000"]) {
        Some(nanos) => {
            println!("| Go net/http and expfmt, one after the other | {:.0} ({:.1} x) |", nanos / 1e3, nanos / ours)
        }
        None => println!("\nnot run: Go's net/http and expfmt"),
    }
    println!();
}

/// A thousand endpoints every second for half a minute.
fn many() {
    let server = Server::start();
    let yaml = config(&server, MANY, "1s", "");
    println!("| {MANY} endpoints every second | cores | RSS MiB | scrapes/s |\n|---|---|---|---|");
    runtime(2).block_on(async {
        let running = Running::start(&yaml);
        running.until_ready(MANY).await;
        for second in [10, 20, 30] {
            let (before, began, at) = (running.scrapes(), cpu(), Instant::now());
            tokio::time::sleep(EACH * 5).await;
            let cores = (cpu() - began).as_secs_f64() / at.elapsed().as_secs_f64();
            let rate = (running.scrapes() - before) as f64 / at.elapsed().as_secs_f64();
            println!("| until second {second} | {cores:.3} | {:.1} | {rate:.0} |", rss_mib());
        }
    });
}

/// Nanoseconds of this process' CPU for one call.
fn measure(mut work: impl FnMut()) -> f64 {
    work();
    let (began, at, mut calls) = (cpu(), Instant::now(), 0_u32);
    while at.elapsed() < EACH {
        (0..20).for_each(|_| work());
        calls += 20;
    }
    (cpu() - began).as_nanos() as f64 / f64::from(calls)
}

struct Running {
    pools: Pools,
    shutdown: CancellationToken,
}

impl Running {
    fn start(yaml: &str) -> Self {
        let config: PoolConfig = serde_saphyr::from_str(yaml).unwrap();
        let shutdown = CancellationToken::new();
        let pools = Pools::start(vec![config.plan().unwrap()], &TaskTracker::new(), shutdown.clone()).unwrap();
        Self { pools, shutdown }
    }

    async fn until_ready(&self, endpoints: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.pools.summary().pools[0].ready_pods < endpoints {
            assert!(Instant::now() < deadline, "{} of {endpoints}", self.pools.summary().pools[0].ready_pods);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn scrapes(&self) -> u64 {
        let mut page = Writer::new(Format::Text);
        self.pools.collect(&mut page);
        let page = page.finish();
        page.lines()
            .find_map(|line| line.strip_prefix("inference_pool_scrapes_total{name=\"p\"} ")?.parse().ok())
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn config(server: &Server, endpoints: usize, interval: &str, more: &str) -> String {
    let addresses: Vec<_> = (0..endpoints).map(|index| format!("\"{}\"", server.at(index))).collect();
    format!(
        "{{name: p, engine: vllm, refresh_metrics_interval: {interval}, metrics: {{path: /metrics{more}}}, \
         discovery: {{static: [{}]}}}}",
        addresses.join(",")
    )
}

/// Model servers on one port of many loopback addresses.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(SERVE, "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }

    fn at(&self, index: usize) -> String {
        format!("127.1.{}.{}:{}", index / 250, index % 250 + 1, self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let answer = |encoding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\n{encoding}content-type: text/plain; version=1.0.0\r\ncontent-length: ");
        [format!("{head}{}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, PAGE.as_bytes()).unwrap();
    let compressed = answer("content-encoding: gzip\r\n", &encoder.finish().unwrap());
    let plain = answer("", PAGE.as_bytes());
    let answers: &'static [Vec<u8>; 2] = Box::leak(Box::new([plain, compressed]));
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = [0; 2048];
            // Requests are small and come one at a time: each arrives in one read.
            while let Ok(length @ 1..) = stream.read(&mut request).await {
                let wants_gzip = memchr::memmem::find(&request[..length], b"gzip").is_some();
                let tallyd = memchr::memmem::find(&request[..length], b"tallyd").is_some();
                if stream.write_all(&answers[usize::from(wants_gzip && tallyd)]).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Nanoseconds of CPU that Go's program took for a page.
fn expfmt(arguments: &[&str]) -> Option<f64> {
    let output = Command::new(std::env::var_os(EXPFMT)?).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// CPU of all threads of this process, to the nanosecond.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| -> u64 {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default()
    };
    Duration::from_nanos(tasks.map(|task| of(task.unwrap().path())).sum())
}

fn rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}
