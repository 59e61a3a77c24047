//! A model server that answers with vLLM's recorded bytes (`companion/tests/lora/vllm`), or misbehaves as told.
//!
//! In: vLLM's admin requests; an adapter exists where its folder has an `adapter_config.json`, as for vLLM itself.
//! Out: the recorded bodies with the asked names in the recorded ones' place. It can be killed and started again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::ModelServer;
use crate::tools;
use crate::wire::{self, Head};

/// How it treats requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As recorded.
    #[default]
    Well,
    /// Takes every request and says nothing.
    Silent,
    /// As recorded, but says nothing to a load of an adapter whose name begins with `slow`.
    SlowLoads,
    /// Sends its answer to all but the health check one byte at a time, and never ends.
    Trickle,
    /// Answers all but the health check with bytes that are no HTTP.
    Noise,
    /// Answers all but the health check with a web page and status 200.
    WebPage,
    /// Answers all but the health check with a gigabyte.
    Gigabyte,
}

/// The server; its threads end with their connections.
#[derive(Debug)]
pub struct Replayer {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    models: TempDir,
}

#[derive(Debug, Default)]
struct Shared {
    adapters: Mutex<BTreeMap<String, String>>,
    mood: Mutex<Mood>,
    requests: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    bytes: AtomicU64,
    is_killed: AtomicBool,
}

impl Replayer {
    /// Starts one on a free port, with three adapters on disk and none loaded.
    ///
    /// # Errors
    /// If no port is free.
    pub fn start() -> Result<Self> {
        let models = tempfile::tempdir()?;
        for number in 1..=3 {
            let folder = models.path().join(format!("tiny-lora-{number}"));
            fs::create_dir(&folder)?;
            fs::write(folder.join("adapter_config.json"), "{}")?;
        }
        let mut server = Self { port: 0, shared: Arc::default(), accepting: None, models };
        server.restart()?;
        Ok(server)
    }

    /// From now on, for requests that begin.
    pub fn set(&self, mood: Mood) {
        *lock(&self.shared.mood) = mood;
    }

    /// First lines of the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// Bytes of answers that the system has taken for sending.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

impl ModelServer for Replayer {
    fn port(&self) -> u16 {
        self.port
    }

    fn adapter(&self, number: u8) -> PathBuf {
        self.models.path().join(format!("tiny-lora-{number}"))
    }

    fn kill(&mut self) -> Result<()> {
        self.shared.is_killed.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
        let ended = self.accepting.take().map(JoinHandle::join);
        ensure!(!matches!(ended, Some(Err(_))), "the accepting thread has panicked");
        for connection in lock(&self.shared.connections).drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        lock(&self.shared.adapters).clear();
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).context("binding the port again")?;
        self.port = listener.local_addr()?.port();
        self.shared.is_killed.store(false, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.is_killed.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(twin) = stream.try_clone() {
                    lock(&shared.connections).push(twin);
                }
                let shared = Arc::clone(&shared);
                // An error ends the connection, which is all that a peer could see of it.
                thread::spawn(move || serve(&stream, &shared));
            }
        }));
        Ok(())
    }

    fn ask(&self, _model: &str) -> Result<Option<(u16, String)>> {
        Ok(None)
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        // Nothing else can be done about a failure here.
        let _ = self.kill();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(stream: &TcpStream, shared: &Shared) -> Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(head) = wire::read_head(&mut reader)? {
        let length = head.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        lock(&shared.requests).push(head.first.clone());
        let mood = *lock(&shared.mood);
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_health = head.first.starts_with("GET /health ");
        let is_slow = asked.get("lora_name").and_then(Value::as_str).is_some_and(|id| id.starts_with("slow"));
        match mood {
            Mood::Silent => return Ok(wait_for_the_peer(stream)?),
            Mood::SlowLoads if is_slow => return Ok(wait_for_the_peer(stream)?),
            Mood::Well | Mood::SlowLoads => {}
            _ if is_health => {}
            Mood::Trickle => return Ok(trickle(stream)?),
            Mood::Noise => return Ok(send(stream, shared, b"\x16\x03\x01 SSH-2.0-noise\r\n\0\0\0\r\n\r\n")?),
            Mood::WebPage => {
                respond(stream, shared, 200, b"<!doctype html><title>Welcome</title>")?;
                continue;
            }
            Mood::Gigabyte => return Ok(gigabyte(stream, shared)?),
        }
        let (status, body) = answer(&head, &asked, shared)?;
        respond(stream, shared, status, body.as_bytes())?;
    }
    Ok(())
}

/// What vLLM answered, with the asked names.
fn answer(head: &Head, asked: &Value, shared: &Shared) -> Result<(u16, String)> {
    let mut words = head.first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let text = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (id, source) = (text("lora_name"), text("lora_path"));
    let mut adapters = lock(&shared.adapters);
    Ok(match (method, path) {
        ("GET", "/health") => (200, String::new()),
        ("GET", "/v1/models") => (200, listing(&adapters)?),
        ("POST", "/v1/load_lora_adapter")
            if adapters.contains_key(&id) && asked.get("load_inplace") != Some(&Value::Bool(true)) =>
        {
            (400, recorded("load-again.body", "lora-1", &id)?)
        }
        ("POST", "/v1/load_lora_adapter") if !Path::new(&source).join("adapter_config.json").is_file() => {
            (404, recorded("load-missing-path.body", "lora-x", &id)?.replace("/no/such/dir", &source))
        }
        ("POST", "/v1/load_lora_adapter") => {
            adapters.insert(id.clone(), source);
            (200, recorded("load.body", "lora-1", &id)?)
        }
        ("POST", "/v1/unload_lora_adapter") if adapters.remove(&id).is_some() => {
            (200, recorded("unload.body", "lora-3", &id)?)
        }
        ("POST", "/v1/unload_lora_adapter") => (404, recorded("unload-again.body", "lora-1", &id)?),
        _ => (404, r#"{"detail":"Not Found"}"#.to_owned()),
    })
}

fn recorded(name: &str, recorded_id: &str, id: &str) -> Result<String> {
    let path = tools::root().join("companion/tests/lora/vllm").join(name);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(if recorded_id.is_empty() { text } else { text.replace(recorded_id, id) })
}

/// The recorded base model, and the recorded adapter once for each that is loaded.
fn listing(adapters: &BTreeMap<String, String>) -> Result<String> {
    let mut page: Value = serde_json::from_str(&recorded("models.body", "", "")?)?;
    let data = page.get_mut("data").and_then(Value::as_array_mut).context("no data")?;
    let sample = data.get(1).cloned().context("no adapter")?;
    data.truncate(1);
    for (id, source) in adapters {
        let mut entry = sample.clone();
        for (key, value) in [("id", id), ("root", source)] {
            *entry.get_mut(key).context("no such key")? = value.as_str().into();
        }
        data.push(entry);
    }
    Ok(page.to_string())
}

fn respond(stream: &TcpStream, shared: &Shared, status: u16, body: &[u8]) -> io::Result<()> {
    let mut bytes =
        format!("HTTP/1.1 {status} Answer\r\nserver: uvicorn\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    send(stream, shared, &bytes)
}

fn send(mut stream: &TcpStream, shared: &Shared, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    shared.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

fn wait_for_the_peer(mut stream: &TcpStream) -> io::Result<()> {
    stream.read(&mut [0; 1]).map(drop)
}

/// The pause is what the server does, not what a test waits for.
fn trickle(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 Answer\r\ncontent-length: 100000\r\n\r\n")?;
    loop {
        stream.write_all(b" ")?;
        thread::sleep(Duration::from_millis(100));
    }
}

fn gigabyte(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    send(stream, shared, b"HTTP/1.1 200 Answer\r\ncontent-length: 1073741824\r\n\r\n")?;
    let block = [b' '; 1 << 16];
    for _ in 0..1 << 14 {
        send(stream, shared, &block)?;
    }
    Ok(())
}
