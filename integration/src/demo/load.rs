//! The mixed load: streams and not, errors, clients that leave.

use std::fmt;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::{Answer, Leave, Request};
use crate::corpus::Exchange;

/// Clients that send at the same time.
const CLIENTS: usize = 8;
/// Between two progress lines.
const PROGRESS: Duration = Duration::from_secs(1);

/// The recorded exchanges that make up the mix, by weight of mention.
const RECORDED: &[&str] = &[
    "vllm-chat-stream-include-usage",
    "llamacpp-chat-timings-per-token-stream",
    "vllm-chat-nonstream-details",
    "vllm-completions-stream-include-usage-details",
    "llamacpp-chat-nonstream",
    "vllm-chat-prefix-third-stream-details",
    "llamacpp-completions-stream",
    "vllm-chat-err-unknown-model-stream",
    "llamacpp-messages-stream",
    "vllm-responses-stream",
    "vllm-chat-max-tokens-1-stream",
    "llamacpp-chat-err-malformed-json",
    "vllm-chat-cancel-stream-after-5-chunks",
    "llamacpp-embeddings-one",
    "vllm-chat-stream-no-usage-details",
    "vllm-completions-logprobs-dead",
];

/// What was sent and what came of it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    requests: u64,
    errors: u64,
    left: u64,
    bytes: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, errors, left, bytes } = self;
        write!(to, "{requests} requests, {errors} errors, {left} left by the client, {bytes} bytes back")
    }
}

/// Recorded requests, answered in their recorded time.
pub(super) fn recorded() -> Result<Vec<Request>> {
    let mut mix = Vec::new();
    for name in RECORDED {
        let exchange = Exchange::read(name)?;
        let mut request = Request::bare(&exchange.method, &exchange.path).header("x-replay", *name);
        request.body.clone_from(&exchange.body);
        for (key, value) in exchange.client_headers() {
            request = request.header(key, value);
        }
        if exchange.expect.ended != "complete" {
            request.leave = Leave::AfterBytes(exchange.answer_body().len());
        }
        mix.push(request);
    }
    Ok(mix)
}

/// Requests that any OpenAI-like server understands, for the first model that it lists.
pub(super) fn live(port: u16) -> Result<Vec<Request>> {
    let answer = Request::bare("GET", "/v1/models").send(port)?;
    let listed: serde_json::Value = serde_json::from_slice(&answer.body).context("/v1/models is no JSON")?;
    let model =
        listed.pointer("/data/0/id").and_then(serde_json::Value::as_str).context("the server lists no model")?;
    println!("model         {model}");
    let chat = |tokens: u32, rest: &str| {
        format!(
            r#"{{"model":"{model}","max_tokens":{tokens},"messages":[{{"role":"user","content":"Write a sentence about the sea."}}]{rest}}}"#
        )
    };
    let streamed = r#","stream":true,"stream_options":{"include_usage":true}"#;
    Ok(vec![
        Request::post("/v1/chat/completions", chat(12, "")),
        Request::post("/v1/chat/completions", chat(24, streamed)),
        Request::post("/v1/completions", format!(r#"{{"model":"{model}","prompt":"The sea","max_tokens":8}}"#)),
        Request::post("/v1/chat/completions", chat(24, r#","stream":true"#)),
        Request::post("/v1/chat/completions", r#"{"model":"#),
        Request::post("/v1/chat/completions", chat(200, streamed)).leaving(Leave::AfterBytes(1_000)),
    ])
}

/// Sends the mix over and over from several clients until the time is over; each request is let finish.
pub(super) fn send(port: u16, mix: &[Request], time: Duration, progress: fn(&str)) -> Counts {
    let counts = Mutex::new(Counts::default());
    let (next, deadline) = (AtomicUsize::new(0), Instant::now() + time);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while Instant::now() < deadline {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = mix.get(turn % mix.len()) else { return };
                    count(&counts, request, request.send(port));
                }
            });
        }
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let so_far = counts.lock().map(|counts| *counts).unwrap_or_default();
            progress(&format!("{so_far}, {} s to go", left.as_secs()));
            thread::sleep(left.min(PROGRESS));
        }
    });
    counts.into_inner().unwrap_or_default()
}

fn count(counts: &Mutex<Counts>, request: &Request, answer: io::Result<Answer>) {
    let Ok(mut counts) = counts.lock() else { return };
    counts.requests += 1;
    if let Ok(answer) = answer {
        counts.errors += u64::from(answer.status >= 400);
        counts.left += u64::from(!answer.complete && request.leave != Leave::Never);
        counts.bytes += answer.body.len() as u64;
    }
}
