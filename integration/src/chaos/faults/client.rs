//! Clients that leave, with a FIN or with a reset, at a known point: each waits until it is there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::Outcome;
use crate::chaos::book::Fate;
use crate::chaos::load::NAMELESS;
use crate::chaos::upstream::{Progress, reset};
use crate::chaos::world::{SOON, World};
use crate::tools::poll;

const EACH: usize = 3;
const BODY: &str = r#"{"messages":[{"role":"user","content":"hello"}],"model":"leaver"}"#;

#[derive(Clone, Copy)]
enum Phase {
    Head,
    Body,
    Queue,
    Wait,
    Answer,
    AfterTheEnd,
}

pub(super) fn closes(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    leave(world, rng, false)
}

pub(super) fn resets(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    leave(world, rng, true)
}

fn leave(world: &mut World, rng: &mut Rng, with_reset: bool) -> Result<Outcome> {
    let mut phases = [Phase::Head, Phase::Body, Phase::Queue, Phase::Wait, Phase::Answer, Phase::AfterTheEnd];
    rng.shuffle(&mut phases);
    for phase in phases {
        if matches!(phase, Phase::Queue) {
            world.pool.all_have_waiting(100);
            // tallyd has seen it: others wait.
            world.waits(2.0)?;
        }
        let clients = (0..EACH).map(|_| come_to(world, phase)).collect::<Result<Vec<_>>>()?;
        if matches!(phase, Phase::Queue) {
            let size = || {
                let labels = [("fairness_id", "leaver")];
                let page = world.companion.as_ref()?.page().ok()?;
                Some(page.total("inference_extension_flow_control_queue_size", &labels))
            };
            ensure!(poll(SOON, || (size()? == EACH as f64).then_some(())).is_some(), "{:?} wait", size());
        }
        for client in clients {
            go(client, with_reset)?;
            let (model, outcome, tokens, bytes) = match phase {
                Phase::Head => continue,
                Phase::Body | Phase::Queue => (NAMELESS, "client_cancelled", None, None),
                Phase::Wait | Phase::Answer => ("leaver", "client_cancelled", None, Some(BODY.len() as u64)),
                Phase::AfterTheEnd => ("leaver", "complete", Some((3, 4)), Some(BODY.len() as u64)),
            };
            let (model, ended) = (model.to_owned(), Instant::now());
            world.enter(Fate { model, outcome, tokens, bytes, ended });
        }
        world.pool.all_have_waiting(0);
    }
    Ok(Outcome::Check)
}

/// A client that is exactly there.
fn come_to(world: &mut World, phase: Phase) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", world.envoy.port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SOON))?;
    let watch = world.watch();
    let answer = match phase {
        Phase::Wait => "hang",
        Phase::Answer => "hang-mid",
        _ => "json",
    };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: tally.test\r\ncontent-type: application/json\r\nx-answer: {answer}\r\n\
         x-tokens: 3/4\r\nx-watch: {watch}\r\nx-gateway-inference-fairness-id: leaver\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    let (begin, _) = BODY.split_at(BODY.len() / 2);
    let wait_for = |progress| {
        ensure!(world.upstream.wait(watch, progress, SOON), "the model server has not seen {progress:?} of it");
        Ok(())
    };
    match phase {
        Phase::Head => stream.write_all(head.trim_end().as_bytes())?,
        Phase::Body => {
            stream.write_all(format!("{head}{begin}").as_bytes())?;
            wait_for(Progress::Head)?;
        }
        Phase::Queue => stream.write_all(format!("{head}{BODY}").as_bytes())?,
        Phase::Wait => {
            stream.write_all(format!("{head}{BODY}").as_bytes())?;
            wait_for(Progress::Whole)?;
        }
        Phase::Answer | Phase::AfterTheEnd => {
            stream.write_all(format!("{head}{BODY}").as_bytes())?;
            let mut seen = Vec::new();
            let mut piece = [0; 1024];
            // The model server sends its whole JSON text in both cases, and in one of them less than it has announced.
            while !seen.ends_with(b"}}") {
                let size = stream.read(&mut piece)?;
                ensure!(size > 0, "no answer");
                seen.extend_from_slice(piece.get(..size).unwrap_or_default());
            }
        }
    }
    Ok(stream)
}

fn go(mut stream: TcpStream, with_reset: bool) -> Result<()> {
    if with_reset {
        reset(&stream)?;
    } else {
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // Until Envoy has closed, too; what it still sends matters to nobody.
        while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {}
    }
    Ok(())
}
