//! Admission through the real Envoy, asked of a companion that breaks the protocol: answers twice, late, or not at all.
//!
//! Acting twice on one request crashes Envoy; whatever the companion does, each client gets one whole answer.

#![allow(clippy::unwrap_used, reason = "the companion's own task; a failure there fails the test by its clients")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use prost::Message;
use prost::bytes::Bytes;
use tally_core::admission::{EnqueueAndWaitResponse, Outcome, REPORT, Refusal};
use tally_integration::client::Request;
use tally_integration::envoy::{Envoy, Options};
use tally_integration::model_server::{Behaviour, ModelServer};
use tally_integration::tools::poll;
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(20);
/// The filter's deadline, and an answer that comes after it.
const DEADLINE_MS: u64 = 150;
const LATE: Duration = Duration::from_millis(400);

/// What the companion does with a question.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Lets it go and refuses it, in one write.
    GoAndRefuse,
    /// Refuses it and then lets it go, a moment later.
    RefuseThenGo,
    /// Lets it go after the deadline, twice.
    LateTwice,
    /// Lets it go, and resets the call instead of ending it.
    GoAndReset,
    /// Says something that is no message, then lets it go.
    NoMessage,
    /// Ends the call in its head, then no more.
    Nothing,
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn go() -> Vec<u8> {
    framed(&EnqueueAndWaitResponse { outcome: Outcome::Dispatched.into(), ..Default::default() }.encode_to_vec())
}

fn refuse() -> Vec<u8> {
    let refusal = Refusal { status: 429, body: "no".into(), ..Refusal::default() };
    let outcome = Outcome::RejectedCapacity.into();
    framed(&EnqueueAndWaitResponse { outcome, refusal: Some(refusal), ..Default::default() }.encode_to_vec())
}

async fn misbehave(manner: Manner, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut head = Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if matches!(manner, Manner::Nothing) {
        respond.send_response(head, true)?;
        return Ok(());
    }
    if matches!(manner, Manner::LateTwice) {
        tokio::time::sleep(LATE).await;
    }
    let mut stream = respond.send_response(head, false)?;
    let pieces = match manner {
        Manner::GoAndRefuse => vec![[go(), refuse()].concat()],
        Manner::RefuseThenGo => vec![refuse(), go()],
        Manner::LateTwice => vec![go(), go()],
        Manner::GoAndReset => vec![go()],
        Manner::NoMessage => vec![framed(b"\xff\xff\xff"), go()],
        Manner::Nothing => Vec::new(),
    };
    for piece in pieces {
        stream.send_data(piece.into(), false)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if matches!(manner, Manner::GoAndReset) {
        stream.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    stream.send_trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]))
}

/// Listens on a free port, and counts the questions that it is done with. Report streams are read by nobody and stay open.
fn rogue(manner: Manner) -> Result<(u16, Arc<AtomicUsize>)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let done = counted.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    let mut reports = Vec::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        if request.uri().path().ends_with(REPORT) {
                            reports.push((request, respond));
                        } else {
                            let done = done.clone();
                            tokio::spawn(async move {
                                // A call that the filter has cancelled meanwhile takes no answer.
                                let _ = misbehave(manner, respond).await;
                                done.fetch_add(1, Ordering::Relaxed);
                            });
                        }
                    }
                });
            }
        });
    });
    Ok((port, done))
}

fn every_client_gets_one_answer(manner: Manner) -> Result<()> {
    const CLIENTS: usize = 60;
    let server = ModelServer::start()?;
    let (companion, done) = rogue(manner)?;
    let options = Options { companion, ..Options::to(server.port) };
    let admission = format!(r#"{{"admission":{{"timeout_ms":{DEADLINE_MS}}}}}"#);
    let mut envoy = Envoy::start(&options.config(&admission))?;
    let port = envoy.port;
    let ask = move || {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
        let behaviour = Behaviour { bytes: 5, ..Behaviour::default() };
        Request::post("/v1/chat/completions", body).header("x-behave", behaviour.header()).send(port)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(ask)).collect();
    for client in clients {
        let answer = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(answer.complete && [200, 429].contains(&answer.status), "{manner:?}: {answer:?}");
    }
    // Late answers too.
    let is_done = || (done.load(Ordering::Relaxed) == CLIENTS).then_some(());
    ensure!(poll(SOON, is_done).is_some(), "{manner:?}: {done:?} of {CLIENTS} questions");
    ensure!(envoy.alive(), "{manner:?}: Envoy ended:\n{}", envoy.log());
    ensure!(envoy.vm_failures()? == 0.0, "{manner:?}: the filter failed:\n{}", envoy.log());
    let asked = || envoy.page().map_or(-1.0, |page| page.total("tally_filter_admissions_total", &[]));
    ensure!(
        poll(SOON, || (asked() == CLIENTS as f64).then_some(())).is_some(),
        "{manner:?}: {} results of {CLIENTS}",
        asked()
    );
    let live = || envoy.page().map_or(-1.0, |page| page.total("tally_filter_live_streams", &[]));
    ensure!(poll(SOON, || (live() == 0.0).then_some(())).is_some(), "{manner:?}: {} streams are left", live());
    Ok(())
}

#[test]
fn a_companion_that_answers_twice_late_or_not_at_all_costs_no_client_its_one_answer() -> Result<()> {
    let manners = [
        Manner::GoAndRefuse,
        Manner::RefuseThenGo,
        Manner::LateTwice,
        Manner::GoAndReset,
        Manner::NoMessage,
        Manner::Nothing,
    ];
    manners.into_iter().try_for_each(every_client_gets_one_answer)
}
