//! What is sent and answered in each measurement.
//!
//! In: a name. Out: the bytes of a request and of its answer. The model's name and `stream` stand behind the messages: the
//! worst place for a reader.

/// One kind of traffic.
pub(crate) struct Shape {
    /// Its name in the table and in `SHAPES`.
    pub name: &'static str,
    /// What it is, for the reader of the table.
    pub what: &'static str,
    /// The whole request, head and body.
    pub request: Vec<u8>,
    /// The whole answer; of a paced stream, one piece each event.
    pub answer: Vec<Vec<u8>>,
    /// Connections that send one request after the other.
    pub connections: usize,
    /// Requests a second in all; 0: as fast as answers come.
    pub rate: u32,
    /// Events of the answer.
    pub events: u32,
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Shape> {
    let json = |name, what, request: usize, answer: usize, connections, rate| Shape {
        name,
        what,
        request: request_of(name, request, false),
        answer: vec![whole(answer)],
        connections,
        rate,
        events: 0,
    };
    let stream = |name, what, count: u32, is_paced, connections| Shape {
        name,
        what,
        request: request_of(name, 1024, true),
        answer: events(count, is_paced),
        connections,
        rate: 0,
        events: count + 2,
    };
    vec![
        json("json-1k", "1 KB request, 1.2 KB answer", 1024, 1229, 16, 0),
        json("json-32k", "32 KB request, 1.2 KB answer", 32 << 10, 1229, 16, 0),
        json("json-1m", "1 MB request, 1.2 KB answer", 1 << 20, 1229, 6, 0),
        json("answer-40k", "1 KB request, 40 KB answer", 1024, 40 << 10, 16, 0),
        stream("sse-paced", "stream of 64 events, at least 1 ms apart, 40 at once", 64, true, 40),
        stream("sse-burst", "stream of 512 events at once (they coalesce)", 512, false, 16),
        json("rate-300", "1 KB requests, 300 a second: latency", 1024, 1229, 8, 300),
        json("rate-10-long", "10 prompts of about 10,000 tokens (40 KB) a second", 40 << 10, 1229, 4, 10),
    ]
}

fn request_of(shape: &str, size: usize, is_stream: bool) -> Vec<u8> {
    let (front, back) = (
        r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":""#,
        if is_stream {
            r#""}],"max_tokens":512,"temperature":0.7,"model":"llama-3-8b","stream":true,"stream_options":{"include_usage":true}}"#
        } else {
            r#""}],"max_tokens":512,"temperature":0.7,"model":"llama-3-8b","stream":false}"#
        },
    );
    let text = words(size.saturating_sub(front.len() + back.len()));
    let body = format!("{front}{text}{back}");
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nx-shape: {shape}\r\n\
         user-agent: tally-bench\r\naccept: */*\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn whole(size: usize) -> Vec<u8> {
    let (front, back) = (
        r#"{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1750000000,"model":"llama-3-8b","choices":[{"index":0,"message":{"role":"assistant","content":""#,
        r#""},"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":211,"total_tokens":467,"completion_tokens":256,"prompt_tokens_details":null}}"#,
    );
    let body = format!("{front}{}{back}", words(size.saturating_sub(front.len() + back.len())));
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn events(count: u32, is_paced: bool) -> Vec<Vec<u8>> {
    let frame = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    let chunk = |delta: &str| {
        format!(
            r#"{{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1750000000,"model":"llama-3-8b","choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]}}"#
        )
    };
    let mut pieces = vec![
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_owned()
            + &frame(&chunk(r#"{"role":"assistant","content":""}"#)),
    ];
    pieces.extend((0..count).map(|number| frame(&chunk(&format!(r#"{{"content":" word{}"}}"#, number % 100)))));
    pieces.push(
        frame(
            r#"{"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1750000000,"model":"llama-3-8b","choices":[],"usage":{"prompt_tokens":211,"total_tokens":467,"completion_tokens":256}}"#,
        ) + &frame("[DONE]")
            + "0\r\n\r\n",
    );
    if is_paced { pieces.into_iter().map(String::into_bytes).collect() } else { vec![pieces.concat().into_bytes()] }
}

fn words(size: usize) -> String {
    const TEXT: &str = "The quick brown fox jumps over the lazy dog, then says \\\"hello\\\" and goes on.\\n";
    let mut text = TEXT.repeat(size / TEXT.len());
    // An escape is never cut: the text ends with plain letters.
    text.push_str(&"x".repeat(size - text.len()));
    text
}
