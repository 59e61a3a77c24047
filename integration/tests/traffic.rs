//! Whatever passes the filter passes untouched: every recorded exchange, and everything that is broken.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_integration::client::{Answer, Leave, Request};
use tally_integration::corpus::Exchange;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::model_server::{Behaviour, End, ModelServer, replay};

struct World {
    envoy: Envoy,
}

impl World {
    fn start() -> Result<Self> {
        let server = ModelServer::start()?;
        Ok(Self { envoy: Envoy::start(&Options::to(server.port))? })
    }

    fn send(&self, request: &Request) -> Result<Answer> {
        Ok(request.send(self.envoy.port)?)
    }

    /// Envoy runs, its VM never failed, and it still answers.
    fn is_well(&mut self) -> Result<()> {
        ensure!(self.envoy.alive(), "Envoy ended:\n{}", self.envoy.log());
        ensure!(self.envoy.vm_failures()? == 0.0, "the filter failed:\n{}", self.envoy.log());
        ensure!(!self.envoy.log().contains("panicked"), "the filter panicked:\n{}", self.envoy.log());
        let answer = self.send(&behaving(&Behaviour { bytes: 5, ..Behaviour::default() }))?;
        ensure!(answer.status == 200 && answer.body == b"xxxxx", "afterwards: {answer:?}");
        Ok(())
    }
}

fn behaving(behaviour: &Behaviour) -> Request {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    Request::post("/v1/chat/completions", body).header("x-behave", behaviour.header())
}

#[test]
fn every_recorded_answer_arrives_byte_for_byte() -> Result<()> {
    let mut world = World::start()?;
    for exchange in Exchange::all()? {
        let answer = world.send(&replay(&exchange))?;
        ensure!(answer.status == exchange.expect.status, "{}: {}", exchange.name, answer.status);
        ensure!(answer.body == exchange.answer_body(), "{}: the body differs", exchange.name);
    }
    world.is_well()
}

#[test]
fn every_recorded_answer_arrives_byte_for_byte_when_both_bodies_come_a_byte_at_a_time() -> Result<()> {
    let mut world = World::start()?;
    for exchange in Exchange::all()?.into_iter().filter(|exchange| exchange.expect.response_bytes < 2_000) {
        let mut request = replay(&exchange).header("x-cut", "1");
        if (1..2_000).contains(&exchange.body.len()) {
            request = request.in_pieces_of(1);
        }
        let answer = world.send(&request)?;
        ensure!(answer.status == exchange.expect.status, "{}: {}", exchange.name, answer.status);
        ensure!(answer.body == exchange.answer_body(), "{}: the body differs", exchange.name);
    }
    world.is_well()
}

#[test]
fn a_header_that_is_not_utf8_passes_and_ends_no_vm() -> Result<()> {
    let mut world = World::start()?;
    for name in ["x-odd", "content-type", "accept", "x-tenant", "authorization"] {
        let answer = world.send(&behaving(&Behaviour::default()).header(name, b"a\xff\xfe".as_slice()))?;
        ensure!(answer.status == 200, "{name}: {}", answer.status);
    }
    world.is_well()
}

#[test]
fn a_request_body_that_is_no_json_passes() -> Result<()> {
    let mut world = World::start()?;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"{\"model\":",
        b"nonsense",
        b"\xff\xfe\x00",
        b"{\"model\":\"a\xff\"}",
        b"{\"model\":{\"a\":[1]}}",
        b"{\"model\":\"\\ud800\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let request = Request::post("/v1/chat/completions", body)
            .header("x-behave", Behaviour { bytes: 3, ..Behaviour::default() }.header());
        let answer = world.send(&request)?;
        ensure!(answer.status == 200 && answer.complete, "{:?}: {answer:?}", String::from_utf8_lossy(body));
    }
    world.is_well()
}

#[test]
fn a_broken_answer_passes_as_it_is() -> Result<()> {
    let mut world = World::start()?;
    for body in ["", "{", "null", "{\"usage\":[", "{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":1e999}}"] {
        for content_type in ["application/json", "text/event-stream", "", "text/html"] {
            let behaviour = Behaviour {
                body: Some(body.to_owned()),
                content_type: content_type.to_owned(),
                pieces_of: 7,
                ..Behaviour::default()
            };
            let answer = world.send(&behaving(&behaviour))?;
            ensure!(answer.status == 200 && answer.body == body.as_bytes(), "{content_type} {body}: {answer:?}");
        }
    }
    world.is_well()
}

#[test]
fn any_method_path_and_status_passes() -> Result<()> {
    let mut world = World::start()?;
    for status in [200, 201, 400, 401, 404, 429, 500, 503] {
        let answer = world.send(&behaving(&Behaviour { status, bytes: 9, ..Behaviour::default() }))?;
        ensure!(answer.status == status && answer.complete, "{status}: {answer:?}");
    }
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
        for path in ["/v1/chat/completions", "/", "/v1/models", "/%00%ff?model=a", "/v1/chat/completions?x=;.;le=.=9"] {
            let request = Request::bare(method, path).header("x-behave", Behaviour::default().header());
            let answer = world.send(&request)?;
            ensure!(answer.status == 200 && answer.complete, "{method} {path}: {answer:?}");
        }
    }
    world.is_well()
}

#[test]
fn trailers_and_early_hints_pass() -> Result<()> {
    let mut world = World::start()?;
    let behaviour = Behaviour { bytes: 9, pieces_of: 3, trailers: true, early_hints: true, ..Behaviour::default() };
    let answer = world.send(&behaving(&behaviour).header("te", "trailers"))?;
    ensure!(answer.status == 200 && answer.complete && answer.body.len() == 9, "{answer:?}");
    world.is_well()
}

#[test]
fn an_answer_that_breaks_off_reaches_the_client_as_broken() -> Result<()> {
    let mut world = World::start()?;
    let cut = Behaviour { bytes: 900, pieces_of: 300, end: End::Close, ..Behaviour::default() };
    let answer = world.send(&behaving(&cut))?;
    ensure!(!answer.complete && answer.status == 200, "{answer:?}");
    let answer = world.send(&behaving(&Behaviour { end: End::NoAnswer, ..Behaviour::default() }))?;
    ensure!(answer.status == 503, "{answer:?}");
    world.is_well()
}

#[test]
fn a_client_may_leave_at_any_time() -> Result<()> {
    let mut world = World::start()?;
    let hanging = Behaviour { bytes: 900, pieces_of: 300, end: End::Hang, ..Behaviour::default() };
    world.send(&behaving(&hanging).leaving(Leave::AfterBytes(300)))?;
    world.send(&behaving(&hanging).leaving(Leave::AfterBytes(900)))?;
    let silent = Behaviour { wait_ms: 2_000, ..Behaviour::default() };
    world.send(&behaving(&silent).leaving(Leave::After(Duration::from_millis(100))))?;
    world.is_well()
}

#[test]
fn a_body_of_ten_megabytes_passes_in_both_directions() -> Result<()> {
    let mut world = World::start()?;
    let body = format!("{{\"model\":\"m\",\"prompt\":\"{}\"}}", "x".repeat(10_000_000));
    let behaviour = Behaviour { bytes: 10_000_000, pieces_of: 60_000, ..Behaviour::default() };
    let request = Request::post("/v1/completions", body).header("x-behave", behaviour.header());
    let answer = world.send(&request)?;
    ensure!(answer.status == 200 && answer.body.len() == 10_000_000, "{} {}", answer.status, answer.body.len());
    world.is_well()
}
