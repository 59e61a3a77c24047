//! Changed traffic through a real Envoy: what the model server gets, what the client gets, byte by byte.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_integration::client::{Answer, Request};
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::expect::{exact, within};
use tally_integration::model_server::{Behaviour, ModelServer, replay};

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
    let usage = with_usage.expect.usage.clone().context("usage")?;
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

fn short(text: &str) -> String {
    if text.len() < 300 { text.to_owned() } else { format!("{} bytes", text.len()) }
}
