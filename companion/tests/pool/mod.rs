//! What the pool's tests share: a model server that can misbehave, and a page to look into.
//!
//! In: a behaviour, changed at any time. Out: real bytes on a real socket. It never sleeps.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test's helper may stop it")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tally_core::exposition::read::{Line, lines};
use tally_core::exposition::{Format, Writer};
use tallyd::collect::Collect;
use tallyd::pool::{PoolConfig, Pools};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[allow(dead_code, reason = "each test binary uses some")]
pub(crate) const VLLM_BUSY: &str = include_str!("../../../testdata/scrapes/vllm-busy.prom");

/// What a server does with a request.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "each test binary uses some")]
pub(crate) enum Behaviour {
    /// Closes the connection after the request.
    Close,
    /// Compressed, with this many bytes on the wire kept back at the end.
    Gzip(String, usize),
    /// Never answers.
    Hang,
    /// Zeroes without end under a promised gigabyte.
    Huge { chunked: bool },
    /// Says that more comes than comes.
    Half(String),
    /// These bytes and nothing of HTTP.
    Raw(&'static [u8]),
    /// An honest page.
    Page(String),
    /// Another status.
    Status(u16),
    /// One byte, and then the next one only at the next turn of the runtime, without end.
    Trickle,
}

/// A server on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) open: Arc<AtomicUsize>,
    pub(crate) most_open: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[allow(dead_code, reason = "each test binary uses some")]
impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::start_at("127.0.0.1:0", behaviour).await
    }

    pub(crate) async fn start_at(address: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
            open: Arc::default(),
            most_open: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (behaviour, asked) = (server.behaviour.clone(), server.asked.clone());
        let (open, most_open) = (server.open.clone(), server.most_open.clone());
        let stop = server.stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (behaviour, asked, open) = (behaviour.clone(), asked.clone(), open.clone());
                most_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                    serve(stream, &behaviour, &asked).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                }));
            }
        }));
        server
    }

    pub(crate) fn now(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, behaviour: &Mutex<Behaviour>, asked: &AtomicUsize) {
    let mut request = Vec::new();
    loop {
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read_buf(&mut request).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        assert!(request.starts_with(b"GET /metrics HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&request));
        request.clear();
        asked.fetch_add(1, Ordering::SeqCst);
        let now = behaviour.lock().unwrap().clone();
        if answer(&mut stream, now).await.is_none() {
            return;
        }
    }
}

/// Nothing: the connection is over.
async fn answer(stream: &mut TcpStream, behaviour: Behaviour) -> Option<()> {
    let ok = |length: usize, more: &str| format!("HTTP/1.1 200 OK\r\n{more}content-length: {length}\r\n\r\n");
    match behaviour {
        Behaviour::Close => return None,
        Behaviour::Gzip(page, kept_back) => {
            let mut body = gzip(page.as_bytes());
            body.truncate(body.len() - kept_back);
            stream.write_all(ok(body.len(), "content-encoding: gzip\r\n").as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
        }
        Behaviour::Hang => {
            let _ = stream.read_u8().await;
            return None;
        }
        Behaviour::Huge { chunked } => {
            let head =
                if chunked { "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into() } else { ok(1 << 30, "") };
            stream.write_all(head.as_bytes()).await.ok()?;
            let mut piece = if chunked { b"10000\r\n".to_vec() } else { Vec::new() };
            piece.extend([b'0'; 1 << 16]);
            piece.extend(if chunked { &b"\r\n"[..] } else { b"" });
            for _ in 0..1 << 14 {
                stream.write_all(&piece).await.ok()?;
            }
        }
        Behaviour::Half(page) => {
            stream.write_all(ok(page.len(), "").as_bytes()).await.ok()?;
            stream.write_all(&page.as_bytes()[..page.len() / 2]).await.ok()?;
            return None;
        }
        Behaviour::Raw(bytes) => {
            stream.write_all(bytes).await.ok()?;
            return None;
        }
        Behaviour::Page(page) => {
            stream.write_all(ok(page.len(), "").as_bytes()).await.ok()?;
            stream.write_all(page.as_bytes()).await.ok()?;
        }
        Behaviour::Status(status) => {
            stream.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno").as_bytes()).await.ok()?;
        }
        Behaviour::Trickle => {
            stream.write_all(ok(1_000_000, "").as_bytes()).await.ok()?;
            loop {
                stream.write_all(b"#").await.ok()?;
                tokio::task::yield_now().await;
            }
        }
    }
    Some(())
}

pub(crate) fn gzip(page: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(page).unwrap();
    encoder.finish().unwrap()
}

/// A vLLM page that says this and nothing else.
#[allow(dead_code, reason = "each test binary uses some")]
pub(crate) fn vllm(waiting: f64, running: f64, kv: f64) -> String {
    let labels = "{engine=\"0\",model_name=\"m\"}";
    format!(
        "vllm:num_requests_waiting{labels} {waiting}\nvllm:num_requests_running{labels} {running}\n\
         vllm:kv_cache_usage_perc{labels} {kv}\n"
    )
}

/// Pools under test, stopped with the test.
#[allow(dead_code, reason = "each test binary uses some")]
pub(crate) struct Running {
    pub(crate) pools: Pools,
    pub(crate) tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[allow(dead_code, reason = "each test binary uses some")]
impl Running {
    /// Pools from the config's text, a YAML list.
    pub(crate) fn start(yaml: &str) -> Self {
        let configs: Vec<PoolConfig> = serde_saphyr::from_str(yaml).unwrap();
        let plans = configs.into_iter().map(|config| config.plan().unwrap()).collect();
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let pools = Pools::start(plans, &tracker, shutdown.clone()).unwrap();
        Self { pools, tracker, shutdown }
    }

    /// The page, as a user sees it.
    pub(crate) fn page(&self) -> String {
        let mut writer = Writer::new(Format::Text);
        self.pools.collect(&mut writer);
        writer.finish()
    }

    /// The sample of this series; `series` is as written on the page.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let page = self.page();
        assert!(lines(page.as_bytes()).all(|line| line != Line::Broken), "{page}");
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until the series have these values.
    pub(crate) async fn until(&self, expected: &[(&str, Option<f64>)]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let is = |(series, value): &(&str, Option<f64>)| match (self.value(series), value) {
                (Some(found), Some(value)) => (found - value).abs() < 1e-9,
                (found, value) => found == *value,
            };
            if expected.iter().all(is) {
                return;
            }
            assert!(Instant::now() < deadline, "expected {expected:?} in\n{}", self.page());
            tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.unwrap_err();
        }
    }
}

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
