//! Changed traffic through a real Envoy: what the model server gets, what the client gets, byte by byte.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::{Answer, Leave, Request};
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, missing, within};
use tally_integration::model_server::{Behaviour, End, ModelServer, replay};
use tally_integration::tools::poll;

const SOON: Duration = Duration::from_secs(15);
const CHAT: &str = "/v1/chat/completions";
const REWRITE: &str = r#"{"inject_usage":true,"model_rewrites":[{"model":"chat","targets":[{"model":"big"}]}]}"#;

fn envoy(config: &str) -> Result<Envoy> {
    Envoy::start(&Options::to(ModelServer::start()?.port).config(config))
}

/// A request whose answer says how it came to the model server.
fn echoed(body: impl Into<Vec<u8>>) -> Request {
    let echo = Behaviour { echo: true, content_type: "text/plain".to_owned(), ..Behaviour::default() };
    Request::post(CHAT, body).header("x-behave", echo.header())
}

/// Head and body of the request as the model server got it.
fn received(answer: &Answer) -> Result<(String, String)> {
    ensure!(answer.status == 200 && answer.complete, "{answer:?}");
    let text = String::from_utf8(answer.body.clone())?;
    let (head, body) = text.split_once("\n\n").context("no echo")?;
    Ok((head.to_owned(), body.to_owned()))
}

#[test]
fn a_silent_stream_is_asked_for_usage_and_the_client_gets_the_bytes_it_would_have_got() -> Result<()> {
    let envoy = envoy(r#"{"inject_usage":true}"#)?;
    let with_usage = Exchange::read("vllm-chat-stream-include-usage")?;
    let whole = with_usage.answer_body();
    // The recorded answer in events; the one with usage is found by hand: no choices.
    let text = String::from_utf8(whole.clone())?;
    let expected: String = text.split_inclusive("\n\n").filter(|event| !event.contains("\"choices\":[],")).collect();
    ensure!(expected.len() < text.len(), "the recording has no usage event");
    let silent = r#"{"model":"m","messages":[],"stream":true}"#;
    let mut sent = 0.0;
    for cut in [1, 7, 64, 1_000_000] {
        let request = Request { body: silent.into(), ..replay(&with_usage) }.header("x-cut", cut.to_string());
        let answer = request.send(envoy.port)?;
        ensure!(answer.complete && answer.body == expected.as_bytes(), "cut {cut}: {answer:?}");
        sent += 1.0;
    }
    // A client that asks itself gets all of it.
    let asking = replay(&with_usage).send(envoy.port)?;
    ensure!(asking.body == whole, "{asking:?}");
    let usage = with_usage.expect.usage.context("usage")?;
    let output = usage.output_tokens.context("tokens")? as f64;
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_output_tokens_sum", &[("model_name", "m")], sent * output),
            exact("inference_objective_usage_quality_total", &[("quality", "found")], sent + 1.0),
        ],
    )?;
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

#[test]
fn the_model_server_gets_the_wanted_edit_and_nothing_else() -> Result<()> {
    let envoy = envoy(REWRITE)?;
    let long = "x".repeat(3_000_000);
    for (body, expected) in [
        (
            r#"{"model":"chat","messages":[],"stream":true}"#.to_owned(),
            r#"{"model":"big","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#.to_owned(),
        ),
        (r#"{ "messages":[], "model" : "chat" }"#.to_owned(), r#"{ "messages":[], "model" : "big" }"#.to_owned()),
        (r#"{"model":"other","stream":false}"#.to_owned(), r#"{"model":"other","stream":false}"#.to_owned()),
        ("no JSON".to_owned(), "no JSON".to_owned()),
        // Longer than any of Envoy's buffers: were it gathered, this would be a 413.
        (
            format!(r#"{{"stream":true,"prompt":"{long}","model":"chat"}}"#),
            format!(r#"{{"stream":true,"prompt":"{long}","model":"big","stream_options":{{"include_usage":true}}}}"#),
        ),
    ] {
        for pieces_of in [None, Some(5), Some(100_000)] {
            if pieces_of == Some(5) && body.len() > 1_000 {
                continue;
            }
            let request = Request { pieces_of, ..echoed(body.clone()).header("accept-encoding", "gzip") };
            let (head, got) = received(&request.send(envoy.port)?)?;
            ensure!(got == expected, "{} became {}", short(&body), short(&got));
            ensure!(!head.contains("accept-encoding") && !head.contains("content-length"), "{head}");
        }
    }
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

#[test]
fn a_rewritten_model_shows_as_target_and_the_client_sees_its_own_name() -> Result<()> {
    let envoy = envoy(REWRITE)?;
    let body = r#"{"id":"1","model":"big","usage":{"prompt_tokens":11,"completion_tokens":7},"choices":[]}"#;
    let expected = body.replace("\"big\"", "\"chat\"");
    for pieces_of in [0, 1, 10] {
        let behaviour = Behaviour { body: Some(body.to_owned()), pieces_of, ..Behaviour::default() };
        let request = Request::post(CHAT, r#"{"model":"chat"}"#).header("x-behave", behaviour.header());
        let answer = request.send(envoy.port)?;
        ensure!(answer.complete && answer.body == expected.as_bytes(), "{answer:?}");
    }
    let labels = [("model_name", "chat"), ("target_model_name", "big")];
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_total", &labels, 3.0),
            exact("inference_objective_output_tokens_sum", &labels, 21.0),
        ],
    )?;
    Ok(())
}

#[test]
fn targets_are_used_as_often_as_their_weights_say() -> Result<()> {
    let envoy = envoy(r#"{"model_rewrites":[{"model":"chat","targets":[{"model":"a","weight":3},{"model":"b"}]}]}"#)?;
    let mut of_a = 0;
    for _ in 0..400 {
        let (_, body) = received(&echoed(r#"{"model":"chat"}"#).send(envoy.port)?)?;
        of_a += i32::from(body == r#"{"model":"a"}"#);
        ensure!(body == r#"{"model":"a"}"# || body == r#"{"model":"b"}"#, "{body}");
    }
    // 300 of 400 are due; five standard deviations are 43.
    ensure!((257..=343).contains(&of_a), "{of_a} of 400 for a weight of three quarters");
    Ok(())
}

#[test]
fn a_dropped_accept_encoding_is_dropped_and_nothing_else() -> Result<()> {
    let envoy = envoy(r#"{"drop_accept_encoding":true}"#)?;
    let body = r#"{"model":"m"}"#;
    let (head, got) = received(&echoed(body).header("accept-encoding", "gzip, br").send(envoy.port)?)?;
    ensure!(got == body && !head.contains("accept-encoding"), "{head}");
    ensure!(head.contains("content-length: 13"), "{head}");
    Ok(())
}

#[test]
fn odd_ends_of_changed_streams_are_still_ends() -> Result<()> {
    let envoy = envoy(REWRITE)?;
    let stream = r#"{"model":"chat","stream":true}"#;
    let events = concat!(
        "data: {\"model\":\"big\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        "data: {\"model\":\"big\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\n",
    );
    let expected = "data: {\"model\":\"chat\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    let behaviour = Behaviour {
        content_type: "text/event-stream".to_owned(),
        body: Some(events.to_owned()),
        pieces_of: 9,
        ..Behaviour::default()
    };
    let ask = |behaviour: &Behaviour| Request::post(CHAT, stream).header("x-behave", behaviour.header());
    let answer = ask(&Behaviour { trailers: true, ..behaviour.clone() }).send(envoy.port)?;
    ensure!(answer.complete && answer.body == expected.as_bytes(), "{answer:?}");
    // The server breaks off inside what may be the usage event: the client has all before it, and sees the break.
    let half = events.get(..events.len() - 40).context("events")?;
    let cut = Behaviour { body: Some(half.to_owned()), end: End::Close, ..behaviour.clone() };
    let answer = ask(&cut).send(envoy.port)?;
    ensure!(!answer.complete && answer.body == expected.as_bytes(), "{answer:?}");
    // The client leaves.
    ask(&Behaviour { gap_ms: 30, ..behaviour }).leaving(Leave::AfterBytes(20)).send(envoy.port)?;
    // An answer that comes compressed although nobody asked for it passes as it is.
    let gzip = Exchange::read("derived-chat-stream-gzip")?;
    let answer = Request { body: stream.into(), ..replay(&gzip) }.send(envoy.port)?;
    ensure!(answer.complete && answer.body == gzip.answer_body(), "{answer:?}");
    let of = |outcome| [("model_name", "chat"), ("target_model_name", "big"), ("outcome", outcome)];
    within(
        SOON,
        || envoy.page(),
        &[
            exact("inference_objective_request_outcome_total", &of("complete"), 2.0),
            exact("inference_objective_request_outcome_total", &of("upstream_reset"), 1.0),
            exact("inference_objective_request_outcome_total", &of("client_cancelled"), 1.0),
            missing("inference_objective_running_requests", &[]),
        ],
    )?;
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

#[test]
fn http2_clients_are_served_the_same_changes() -> Result<()> {
    let envoy = envoy(REWRITE)?;
    let behaviour = Behaviour { body: Some(r#"{"model":"big"}"#.to_owned()), ..Behaviour::default() };
    let echo = Behaviour { echo: true, content_type: "text/plain".to_owned(), ..Behaviour::default() };
    for (behaviour, expected) in [(behaviour, r#"{"model":"chat"}"#), (echo, "\n\n{\"model\":\"big\"}")] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "20"])
            .args(["--data-binary", r#"{"model":"chat"}"#, "--header", "content-type: application/json"])
            .args(["--header", &format!("x-behave: {}", behaviour.header())])
            .arg(format!("http://127.0.0.1:{}{CHAT}", envoy.port))
            .output();
        let Ok(output) = output else {
            println!("not run: curl is not installed");
            return Ok(());
        };
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(text.ends_with(expected), "{output:?}");
    }
    Ok(())
}

/// Marks what goes to the route of this model, ahead of the bootstrap's own route.
const ROUTES: (&str, &str) = (
    "              - name: model_server\n                match: { prefix: \"/\" }",
    r#"              - match: { prefix: "/", headers: [{ name: x-gateway-model-name, string_match: { exact: small } }] }
                route: { cluster: model_server, timeout: 0s }
                request_headers_to_add: [{ header: { key: x-routed, value: small } }]
              - name: model_server
                match: { prefix: "/" }"#,
);
const ROUTE: &str = r#"{"route_header":"x-gateway-model-name","inject_usage":true,"model_rewrites":[{"model":"small","targets":[{"model":"s"}]}]}"#;

#[test]
fn the_route_is_chosen_by_the_body_s_model() -> Result<()> {
    let stops = (
        "                root_id: tally\n",
        "                root_id: tally\n                allow_on_headers_stop_iteration: true\n",
    );
    let options = Options::to(ModelServer::start()?.port).config(ROUTE);
    let envoy = Envoy::start(&options.edit(ROUTES.0, ROUTES.1).edit(stops.0, stops.1))?;
    let long = "x".repeat(150_000);
    let longer = "x".repeat(3_000_000);
    for (body, expected, header) in [
        (r#"{"model":"small"}"#.to_owned(), r#"{"model":"s"}"#.to_owned(), Some("small")),
        (r#"{"model":"large"}"#.to_owned(), r#"{"model":"large"}"#.to_owned(), Some("large")),
        (
            format!(r#"{{"stream":true,"prompt":"{long}","model":"small","n":1}}"#),
            format!(
                r#"{{"stream":true,"prompt":"{long}","model":"s","n":1,"stream_options":{{"include_usage":true}}}}"#
            ),
            Some("small"),
        ),
        // The model comes too late: the request goes on without the header, and without a 413.
        (
            format!(r#"{{"prompt":"{longer}","model":"small"}}"#),
            format!(r#"{{"prompt":"{longer}","model":"s"}}"#),
            None,
        ),
        (
            format!(r#"{{"model":"small","prompt":"{longer}"}}"#),
            format!(r#"{{"model":"s","prompt":"{longer}"}}"#),
            Some("small"),
        ),
        ("nonsense".to_owned(), "nonsense".to_owned(), None),
        (String::new(), String::new(), None),
    ] {
        for pieces_of in [None, Some(3), Some(50_000)] {
            // Of a long body that does not tell its length, see docs/CHANGES.md.
            let is_long_and_late = body.len() > 1_000_000 && header.is_none();
            if (pieces_of == Some(3) && body.len() > 1_000) || (pieces_of.is_some() && is_long_and_late) {
                continue;
            }
            let request = Request { pieces_of, ..echoed(body.clone()).header("x-gateway-model-name", "small") };
            let answer = request.send(envoy.port).with_context(|| short(&body))?;
            let (head, got) = received(&answer).with_context(|| format!("{} in {pieces_of:?}", short(&body)))?;
            ensure!(got == expected, "{} became {}", short(&body), short(&got));
            let line = header.map_or_else(String::new, |model| format!("x-gateway-model-name: {model}"));
            ensure!(head.contains(&line) && (header.is_some() || !head.contains("x-gateway-model-name")), "{head}");
            ensure!(head.contains("x-routed: small") == (header == Some("small")), "{head}");
        }
    }
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

#[test]
fn without_the_needed_envoy_setting_requests_go_on_after_a_while_unrouted() -> Result<()> {
    let options = Options::to(ModelServer::start()?.port).config(ROUTE);
    let envoy = Envoy::start(&options.edit(ROUTES.0, ROUTES.1))?;
    let (head, body) = received(&echoed(r#"{"model":"small"}"#).send(envoy.port)?)?;
    ensure!(body == r#"{"model":"s"}"# && !head.contains("x-routed"), "{head}");
    ensure!(envoy.log().contains("allow_on_headers_stop_iteration"), "{}", envoy.log());
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

#[test]
fn access_logs_show_what_was_measured_whatever_the_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("access.log");
    let fields = ["model", "target_model", "outcome", "error_code", "input_tokens", "output_tokens", "cached_tokens"];
    let line: String = fields.iter().map(|field| format!("%FILTER_STATE(wasm.tally.{field}:PLAIN)% ")).collect();
    let access_log = format!(
        r#"          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {}
              log_format: {{ text_format_source: {{ inline_string: "{line}%FILTER_STATE(wasm.tally.duration_ms:PLAIN)%\n" }} }}
          stat_prefix: llm
"#,
        log.display()
    );
    let options = Options::to(ModelServer::start()?.port).config(r#"{"log_fields":true}"#);
    let envoy = Envoy::start(&options.edit("          stat_prefix: llm\n", &access_log))?;
    let plain = Behaviour {
        body: Some(
            r#"{"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":5}}}"#
                .to_owned(),
        ),
        ..Behaviour::default()
    };
    let ask = |model: &str, behaviour: &Behaviour| {
        Request::post(CHAT, format!(r#"{{"model":"{model}"}}"#)).header("x-behave", behaviour.header())
    };
    ask("good", &plain).send(envoy.port)?;
    ask("rewritten", &plain).header("x-gateway-model-name-rewrite", "target").send(envoy.port)?;
    ask("refused", &Behaviour { status: 503, bytes: 3, ..Behaviour::default() }).send(envoy.port)?;
    ask("gone", &Behaviour { end: End::NoAnswer, ..Behaviour::default() }).send(envoy.port)?;
    let cut = Behaviour { bytes: 100, pieces_of: 50, end: End::Close, ..Behaviour::default() };
    ask("cut", &cut).send(envoy.port)?;
    let silent = Behaviour { wait_ms: 3_000, ..Behaviour::default() };
    ask("left", &silent).leaving(Leave::After(Duration::from_millis(200))).send(envoy.port)?;
    Request::bare("GET", "/v1/models").send(envoy.port)?;
    let lines = poll(SOON, || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        (text.lines().count() == 7).then_some(text)
    })
    .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    for expected in [
        "good - complete - 11 7 5 ",
        "rewritten target complete - 11 7 5 ",
        "refused - upstream_error ModelServerError - - - ",
        "gone - upstream_reset ModelServerError - - - ",
        "cut - upstream_reset ModelServerError - - - ",
        "left - client_cancelled - - - - ",
        "- - - - - - - -",
    ] {
        ensure!(lines.lines().any(|line| line.starts_with(expected)), "no line `{expected}` in\n{lines}");
    }
    let took: f64 = lines
        .lines()
        .find(|line| line.starts_with("left"))
        .and_then(|line| line.rsplit(' ').next())
        .context("left")?
        .parse()?;
    // It left after 200 ms; a busy Envoy may have seen its request late, and the answer would have taken 3 s.
    ensure!((20.0..2_900.0).contains(&took), "{took} ms");
    ensure!(envoy.vm_failures()? == 0.0);
    Ok(())
}

const BEFORE_ROUTER: &str = "          - name: envoy.filters.http.router\n";

#[test]
fn tokens_that_another_filter_has_counted_are_taken() -> Result<()> {
    let lua = r#"          - name: lua
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
                  function envoy_on_response(handle)
                    local metadata = handle:streamInfo():dynamicMetadata()
                    metadata:set("envoy.ai.token_usage", "input_tokens", 1000)
                    metadata:set("envoy.ai.token_usage", "output_tokens", 200)
                    metadata:set("envoy.ai.token_usage", "input_token_details", { cached_tokens = 30 })
                  end
"#;
    // Envoy's own reader of tokens: knows an API that this filter does not.
    let manager = r#"          - name: envoy.filters.http.ai_protocol_manager
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager
              response_handling:
                token_usage: { include_unconfigured_routes: true, default_llm_protocol: GEMINI_GENERATE_CONTENT }
"#;
    let gemini = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":41,"candidatesTokenCount":6,"totalTokenCount":47,"cachedContentTokenCount":5},"modelVersion":"gemini-2"}"#;
    let openai = r#"{"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
    for (filter, answer, [input, output, cached]) in
        [(lua, openai, [1000.0, 200.0, 30.0]), (manager, gemini, [41.0, 6.0, 5.0])]
    {
        let options = Options::to(ModelServer::start()?.port).config(r#"{"envoy_token_usage":true}"#);
        let envoy = Envoy::start(&options.edit(BEFORE_ROUTER, &[filter, BEFORE_ROUTER].concat()))?;
        let behaviour = Behaviour { body: Some(answer.to_owned()), ..Behaviour::default() };
        Request::post(CHAT, r#"{"model":"m"}"#).header("x-behave", behaviour.header()).send(envoy.port)?;
        within(
            SOON,
            || envoy.page(),
            &[
                exact("inference_objective_input_tokens_sum", &[("model_name", "m")], input),
                exact("inference_objective_output_tokens_sum", &[("model_name", "m")], output),
                exact("inference_objective_prompt_cached_tokens_sum", &[("model_name", "m")], cached),
                exact("inference_objective_usage_quality_total", &[("quality", "found")], 1.0),
            ],
        )?;
        ensure!(envoy.vm_failures()? == 0.0);
    }
    Ok(())
}

fn short(text: &str) -> String {
    if text.len() < 300 { text.to_owned() } else { format!("{} bytes", text.len()) }
}
