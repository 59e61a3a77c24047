//! Clients in the background of every fault: each knows how its requests must end, and notices when one is hurt.
//!
//! In: a port, a book. Out: fates in the book; what happened to a client that no fault explains. It can be paused: then
//! nothing is under way, and the book is whole.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::book::{Book, Fate};
use crate::client::{Answer, Leave, Request};
use crate::tools::poll;

const CLIENTS: usize = 6;
/// Between two requests of a client: the faults need a part of the machine, too.
const THINK: Duration = Duration::from_millis(2);
/// No request takes this long, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// As the filter names what no body named.
pub(crate) const NAMELESS: &str = "unknown";

/// What a client is to make of an answer that its request did not ask for: `None`, it was hurt.
pub(crate) type Explain = fn(&Answer) -> Option<Meaning>;

/// What an explained answer means for the metrics.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meaning {
    /// The filter never saw the request.
    NotCounted,
    /// Counted with this outcome.
    Counted(&'static str),
    /// The same, but its body never came to the filter: it has no model and no size.
    CountedNameless(&'static str),
}

/// Nothing explains it: the client was hurt.
pub(crate) fn nothing(_: &Answer) -> Option<Meaning> {
    None
}

/// A shared ledger.
pub(crate) type Books = Arc<Mutex<Book>>;

/// Locks it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Shared {
    port: u16,
    books: Books,
    next: AtomicU64,
    is_paused: AtomicBool,
    is_over: AtomicBool,
    /// Only requests that must succeed.
    is_calm: AtomicBool,
    busy: AtomicUsize,
    explain: Mutex<Explain>,
    explained: AtomicU64,
    hurt: Mutex<Vec<String>>,
}

/// Running clients.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts them against this port.
    pub(crate) fn start(port: u16, books: Books) -> Self {
        let shared = Arc::new(Shared {
            port,
            books,
            next: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_calm: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            explain: Mutex::new(nothing),
            explained: AtomicU64::new(0),
            hurt: Mutex::default(),
        });
        let clients = (0..CLIENTS)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.run())
            })
            .collect();
        Self { shared, clients }
    }

    /// From now on such answers are explained so; requests that fail by themselves pause meanwhile.
    pub(crate) fn explain(&self, explain: Explain) {
        *locked(&self.shared.explain) = explain;
        self.shared.is_calm.store(true, Ordering::SeqCst);
    }

    /// No fault explains anything any more; all that was sent before has its end first.
    pub(crate) fn settle(&self) -> Result<()> {
        self.pause()?;
        *locked(&self.shared.explain) = nothing;
        self.shared.is_calm.store(false, Ordering::SeqCst);
        self.resume();
        Ok(())
    }

    /// Waits until so many further requests have been sent: traffic, not time, is what a fault has to meet.
    pub(crate) fn after(&self, requests: u64) -> Result<()> {
        let target = self.shared.next.load(Ordering::SeqCst) + requests;
        let met = poll(PATIENCE, || (self.shared.next.load(Ordering::SeqCst) >= target).then_some(()));
        ensure!(met.is_some(), "the clients' traffic stands still");
        Ok(())
    }

    /// Requests that are begun in a moment.
    pub(crate) fn pace(&self) -> u64 {
        let before = self.shared.next.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        self.shared.next.load(Ordering::SeqCst) - before
    }

    /// Answers so far that only a fault explains.
    pub(crate) fn explained(&self) -> u64 {
        self.shared.explained.load(Ordering::SeqCst)
    }

    /// Stops sending and waits for all that is under way.
    pub(crate) fn pause(&self) -> Result<()> {
        self.shared.is_paused.store(true, Ordering::SeqCst);
        let quiet = poll(PATIENCE, || (self.shared.busy.load(Ordering::SeqCst) == 0).then_some(()));
        ensure!(quiet.is_some(), "requests hang: {} have no end", self.shared.busy.load(Ordering::SeqCst));
        Ok(())
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.shared.is_paused.store(false, Ordering::SeqCst);
    }

    /// Clients that were hurt since the last look, in words.
    pub(crate) fn hurt(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.hurt))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            // A client that panicked is hurt enough: its request has no end, which `pause` tells.
            let _ = client.join();
        }
    }
}

/// One request of the mix.
struct Turn {
    request: Request,
    model: String,
    bytes: u64,
    /// Status and completeness of the answer, the outcome and the tokens it has then.
    expected: (u16, bool, &'static str, Option<(u64, u64)>),
}

impl Shared {
    fn run(&self) {
        while !self.is_over.load(Ordering::SeqCst) {
            self.busy.fetch_add(1, Ordering::SeqCst);
            // Looked at after it is busy: `pause` then sees either this request or none.
            if !self.is_paused.load(Ordering::SeqCst) {
                self.one();
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
            thread::sleep(THINK);
        }
    }

    fn one(&self) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let turn = turn(number, self.is_calm.load(Ordering::SeqCst));
        let answer = turn.request.send(self.port);
        let ended = Instant::now();
        let (status, is_complete, outcome, tokens) = turn.expected;
        let (model, bytes) = (turn.model, Some(turn.bytes));
        let fate = Fate { model, outcome, tokens, bytes, ended };
        let fate = match answer {
            Ok(answer) if (answer.status, answer.complete) == (status, is_complete) && has(&answer, tokens) => {
                Some(fate)
            }
            Ok(answer) => {
                let explained = locked(&self.explain)(&answer);
                if explained.is_some() {
                    self.explained.fetch_add(1, Ordering::SeqCst);
                } else {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    let told =
                        format!("request {number} ({outcome}) got {} {body:?} after {:?}", answer.status, answer.took);
                    locked(&self.hurt).push(told);
                }
                explained.and_then(|meaning| fate.explained(meaning))
            }
            Err(error) => {
                if locked(&self.explain)(&Answer::default()).is_none() {
                    locked(&self.hurt).push(format!("request {number} ({outcome}) could not be sent: {error}"));
                }
                None
            }
        };
        if let Some(fate) = fate {
            locked(&self.books).enter(fate);
        }
    }
}

/// Is it the answer to this very request?
fn has(answer: &Answer, tokens: Option<(u64, u64)>) -> bool {
    tokens.is_none_or(|(input, output)| {
        let usage = format!(r#""prompt_tokens":{input},"completion_tokens":{output}}}"#);
        String::from_utf8_lossy(&answer.body).contains(&usage)
    })
}

impl Fate {
    /// What it is instead.
    pub(crate) fn explained(self, meaning: Meaning) -> Option<Self> {
        match meaning {
            Meaning::NotCounted => None,
            Meaning::Counted(outcome) => Some(Self { outcome, tokens: None, ..self }),
            Meaning::CountedNameless(outcome) => {
                Some(Self { model: NAMELESS.to_owned(), outcome, tokens: None, bytes: None, ..self })
            }
        }
    }
}

/// A chat request for this model that the model server is to answer so.
pub(crate) fn chat(model: &str, answer: &str, tokens: (u64, u64)) -> Request {
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}"#);
    Request::post("/v1/chat/completions", body)
        .header("x-answer", answer)
        .header("x-tokens", format!("{}/{}", tokens.0, tokens.1))
}

fn turn(number: u64, is_calm: bool) -> Turn {
    let model = format!("model-{}", number % 5);
    let tokens = (number % 9_000, 1 + number % 300);
    let kind = if is_calm { number % 15 } else { number % 20 };
    let (answer, expected) = match kind {
        0..=8 => ("json", (200, true, "complete", Some(tokens))),
        9..=14 => ("sse", (200, true, "complete", Some(tokens))),
        15 => ("status:500", (500, true, "upstream_error", None)),
        16 => ("status:429", (429, true, "upstream_error", None)),
        17 => ("close-before", (503, true, "upstream_reset", None)),
        18 => ("close-mid", (200, false, "upstream_reset", None)),
        _ => ("hang-chunk", (200, false, "client_cancelled", None)),
    };
    let mut request = chat(&model, answer, tokens);
    if kind == 19 {
        request = request.leaving(Leave::AfterBytes(10));
    }
    let bytes = request.body.len() as u64;
    Turn { request, model, bytes, expected }
}
