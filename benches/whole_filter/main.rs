//! The whole filter without Envoy, natively: `measured` is what profiles and instruction counts look at.
//!
//! usage: whole_filter SHAPE TIMES      (see `scripts/instructions.sh` and `scripts/profile-filter.sh`)
//! In: a shape of traffic. Out: calls to the host per request on stdout.
#![allow(clippy::indexing_slicing, clippy::expect_used, clippy::panic, reason = "a bench: no traffic depends on it")]

mod host;

/// Bytes that Envoy hands over at once, as its connections read them.
const PIECE: usize = 16 << 10;
const REQUEST_HEADERS: &[(&str, &str)] = &[(":method", "POST"), (":path", "/v1/chat/completions")];
const JSON_HEADERS: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/json")];
const EVENT_HEADERS: &[(&str, &str)] = &[(":status", "200"), ("content-type", "text/event-stream; charset=utf-8")];

unsafe extern "C" {
    fn proxy_on_context_create(id: u32, root: u32);
    fn proxy_on_vm_start(id: u32, size: usize) -> bool;
    fn proxy_on_configure(id: u32, size: usize) -> bool;
    fn proxy_on_tick(id: u32);
    fn proxy_on_request_headers(id: u32, count: usize, end: bool) -> u32;
    fn proxy_on_request_body(id: u32, size: usize, end: bool) -> u32;
    fn proxy_on_response_headers(id: u32, count: usize, end: bool) -> u32;
    fn proxy_on_response_body(id: u32, size: usize, end: bool) -> u32;
    fn proxy_on_log(id: u32);
    fn proxy_on_done(id: u32) -> bool;
    fn proxy_on_delete(id: u32);
}

/// A request and its answer in the pieces in which they come.
struct Shape {
    request: Vec<&'static [u8]>,
    headers: &'static [(&'static str, &'static str)],
    answer: Vec<&'static [u8]>,
}

fn main() {
    // Cargo's own argument comes last.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [name, times] = arguments.as_slice() else { return };
    let shape = shape(name).expect("json-1k, json-1m, answer-40k, sse-64 or sse-burst");
    let times: u32 = times.parse().expect("a number of requests");
    tally::start();
    const ROOT: u32 = 1;
    // SAFETY: the SDK's exports, called in Envoy's order; here and below.
    unsafe {
        proxy_on_context_create(ROOT, 0);
        assert!(proxy_on_vm_start(ROOT, 0) && proxy_on_configure(ROOT, 2));
    }
    // The first request makes rows and buffers; what is measured comes after.
    measured(&shape, ROOT, 2, 1);
    unsafe { proxy_on_tick(ROOT) };
    let before = host::calls();
    measured(&shape, ROOT, 3, times);
    println!("{name} {} host calls", (host::calls() - before) / u64::from(times));
}

/// So many requests of the shape, one after the other.
#[inline(never)]
fn measured(shape: &Shape, root: u32, first: u32, times: u32) {
    for id in first..first + times {
        unsafe { exchange(shape, root, id) };
    }
}

unsafe fn exchange(shape: &Shape, root: u32, id: u32) {
    host::set(|now| now.headers = [REQUEST_HEADERS, shape.headers]);
    unsafe {
        proxy_on_context_create(id, root);
        proxy_on_request_headers(id, REQUEST_HEADERS.len(), false);
        pieces(&shape.request, |size, is_last| proxy_on_request_body(id, size, is_last));
        proxy_on_response_headers(id, shape.headers.len(), false);
        pieces(&shape.answer, |size, is_last| proxy_on_response_body(id, size, is_last));
        proxy_on_log(id);
        assert!(proxy_on_done(id));
        proxy_on_delete(id);
    }
}

/// The pieces one by one; the end comes alone, as it does in Envoy.
fn pieces(pieces: &[&'static [u8]], give: impl Fn(usize, bool) -> u32) {
    for piece in pieces.iter().chain([&b"".as_slice()]) {
        host::pass();
        host::set(|now| now.piece = piece);
        give(piece.len(), piece.is_empty());
    }
}

fn shape(name: &str) -> Option<Shape> {
    let json = |request: usize, answer: usize| Shape {
        request: cut(self::request(request, false)),
        headers: JSON_HEADERS,
        answer: cut(self::answer(answer)),
    };
    Some(match name {
        "json-1k" => json(1 << 10, 1229),
        "json-1m" => json(1 << 20, 1229),
        "answer-40k" => json(1 << 10, 40 << 10),
        "sse-64" => Shape {
            request: cut(request(1 << 10, true)),
            headers: EVENT_HEADERS,
            answer: events(64).into_iter().map(leak).collect(),
        },
        "sse-burst" => {
            Shape { request: cut(request(1 << 10, true)), headers: EVENT_HEADERS, answer: cut(events(512).concat()) }
        }
        _ => return None,
    })
}

/// The model stands behind the messages: the worst place for a reader.
fn request(size: usize, is_stream: bool) -> String {
    let front = r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":""#;
    let back = format!(r#""}}],"max_tokens":512,"temperature":0.7,"model":"llama-3-8b","stream":{is_stream}}}"#);
    format!("{front}{}{back}", words(size.saturating_sub(front.len() + back.len())))
}

fn answer(size: usize) -> String {
    let front = r#"{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1750000000,"model":"llama-3-8b","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let back = r#""},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":211,"total_tokens":467,"completion_tokens":256,"prompt_tokens_details":null}}"#;
    format!("{front}{}{back}", words(size.saturating_sub(front.len() + back.len())))
}

fn events(count: u32) -> Vec<String> {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1750000000,\
             \"model\":\"llama-3-8b\",\"choices\":[{rest}}}\n\n"
        )
    };
    let delta = |text: String| {
        event(&format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}]"#))
    };
    let usage = event(r#"],"usage":{"prompt_tokens":211,"total_tokens":467,"completion_tokens":256}"#);
    let deltas = (0..count).map(|number| delta(format!(" word{}", number % 100)));
    deltas.chain([usage + "data: [DONE]\n\n"]).collect()
}

fn words(size: usize) -> String {
    const TEXT: &str = "The quick brown fox jumps over the lazy dog, then says \\\"hello\\\" and goes on.\\n";
    let text = TEXT.repeat(size / TEXT.len());
    // An escape is never cut: the text ends with plain letters.
    let rest = "x".repeat(size - text.len());
    text + &rest
}

fn cut(text: String) -> Vec<&'static [u8]> {
    leak(text).chunks(PIECE).collect()
}

/// It lives as long as the program does.
fn leak(text: String) -> &'static [u8] {
    String::leak(text).as_bytes()
}
