//! Updates of the listener while requests are under way: none is lost, none is hurt, a bad one changes nothing.

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use super::Outcome;
use crate::chaos::book::Fate;
use crate::chaos::bootstrap::CONFIG;
use crate::chaos::load::{Meaning, chat};
use crate::chaos::upstream::Progress;
use crate::chaos::world::{SOON, World};
use crate::client::{Answer, Request};

const UNDER_WAY: usize = 4;
const MODEL: &str = "across";

/// The usual configuration with a number in it that makes it another one and matters to nobody.
fn other(rng: &mut Rng) -> String {
    let (flush, models) = (rng.u32(150..350), rng.u32(50..200));
    CONFIG.replacen('{', &format!(r#"{{"flush_interval_ms":{flush},"max_models":{models},"#), 1)
}

/// Requests that the model server has, and answers after a while.
pub(super) struct UnderWay(Vec<thread::JoinHandle<(Request, std::io::Result<Answer>)>>);

impl UnderWay {
    /// Sends them and waits until the model server has them.
    pub(super) fn start(world: &mut World, wait_ms: u64) -> Result<Self> {
        let mut threads = Vec::new();
        for _ in 0..UNDER_WAY {
            let (watch, port) = (world.watch(), world.envoy.port);
            let request = chat(MODEL, &format!("wait:{wait_ms}"), (5, 6)).header("x-watch", watch.to_string());
            threads.push(thread::spawn(move || {
                let answer = request.send(port);
                (request, answer)
            }));
            ensure!(world.upstream.wait(watch, Progress::Whole, SOON), "a request did not arrive");
        }
        Ok(Self(threads))
    }

    /// Waits for their ends, which must be good, and enters them.
    pub(super) fn end(self, world: &World) -> Result<()> {
        self.ended(world, None)
    }

    /// The same, but some may fail, which then means this.
    pub(super) fn end_or(self, world: &World, meaning: Meaning) -> Result<()> {
        self.ended(world, Some(meaning))
    }

    fn ended(self, world: &World, or: Option<Meaning>) -> Result<()> {
        for thread in self.0 {
            let (request, answer) = thread.join().ok().context("a client panicked")?;
            let answer = answer?;
            let (model, bytes) = (MODEL.to_owned(), Some(request.body.len() as u64));
            let (tokens, ended) = (Some((5, 6)), Instant::now());
            let fate = Fate { model, outcome: "complete", tokens, bytes, ended };
            let fate = match or {
                _ if answer.status == 200 && answer.complete => Some(fate),
                Some(meaning) => fate.explained(meaning),
                None => bail!("a request under way got {answer:?}"),
            };
            fate.into_iter().for_each(|fate| world.enter(fate));
        }
        Ok(())
    }
}

pub(super) fn update(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let under_way = UnderWay::start(world, 800)?;
    world.options.config = other(rng);
    world.envoy.update_listener(&world.options)?;
    world.load.after(50)?;
    under_way.end(world)?;
    Ok(Outcome::Check)
}

pub(super) fn burst(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let under_way = UnderWay::start(world, 1_500)?;
    for _ in 0..5 {
        world.options.config = other(rng);
        world.envoy.update_listener(&world.options)?;
        world.load.after(rng.u64(1..20))?;
    }
    under_way.end(world)?;
    Ok(Outcome::Check)
}

pub(super) fn refused(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let under_way = UnderWay::start(world, 500)?;
    let mut bad = world.options.clone();
    bad.config = r#"{"no_such_key":1}"#.to_owned();
    world.envoy.offer_listener(&bad, "envoy_listener_manager_lds_update_rejected")?;
    world.load.after(50)?;
    under_way.end(world)?;
    world.options.config = other(rng);
    world.envoy.update_listener(&world.options)?;
    Ok(Outcome::Check)
}
