//! All faults. Each brings something about in a world under traffic, enters what it has sent itself in the book, and puts
//! everything right again; whether the figures are, the caller looks.

mod client;
mod companion;
mod configuration;
mod pressure;
mod process;
mod upstream;
mod vm;

use std::time::Instant;

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::book::Fate;
use super::world::{Found, World};
use crate::client::Request;

/// What becomes of a run of a fault.
pub(crate) enum Outcome {
    /// The world has to be checked.
    Check,
    /// It was a world of its own, and was checked.
    Checked(Found),
    /// It could not be brought about here, and why.
    NotRun(String),
}

/// A kind of fault.
pub(crate) struct Fault {
    /// As the table names it.
    pub name: &'static str,
    /// It takes a world of its own.
    pub is_apart: bool,
    /// Brings it about.
    pub run: fn(&mut World, &mut Rng) -> Result<Outcome>,
}

/// All kinds.
pub(crate) fn all() -> Vec<Fault> {
    let fault = |name, run| Fault { name, is_apart: false, run };
    let apart = |name, run| Fault { name, is_apart: true, run };
    vec![
        fault("client closes (FIN): in head, body, queue, wait, answer, after the end", client::closes),
        fault("client resets (RST): in the same six phases", client::resets),
        fault("model server resets (RST) before and in its answer", upstream::resets),
        fault("model server closes (FIN), half-closes, before, in and after its answer", upstream::closes),
        fault("model server answers garbage", upstream::garbage),
        fault("model server answers with a head of 100 KiB", upstream::oversized),
        fault("model server is slow, by the piece and as a whole", upstream::slow),
        fault("time-outs of route and stream", upstream::timeouts),
        fault("retries by Envoy, that help and that do not", upstream::retries),
        fault("listener update with another configuration of the filter, requests under way", configuration::update),
        fault("five listener updates one after the other", configuration::burst),
        fault("listener update with a configuration that the filter refuses", configuration::refused),
        fault("a foreign filter's VM traps", vm::foreign_traps),
        fault("a foreign filter's VM takes 256 MiB and traps", vm::foreign_hogs),
        apart("the filter's own VM traps", vm::own_traps),
        apart("listeners are drained, requests under way", process::drain),
        apart("Envoy is stopped (SIGTERM or /quitquitquit) in full traffic", process::shutdown),
        fault("tallyd is killed (SIGKILL) and started again", companion::killed),
        fault("tallyd is stopped (SIGTERM) and started again", companion::stopped),
        fault("tallyd is frozen (SIGSTOP) for a while", companion::frozen),
        fault("pool endpoints flap: 500, silence, half pages, garbage, off the list", companion::flapping),
        fault("the pool is full, then free", companion::full),
        apart("Envoy's wall clock jumps an hour, forward and back", process::clock),
        apart("Envoy has no file descriptors left", pressure::envoy_files),
        fault("tallyd has no file descriptors left", pressure::companion_files),
        fault("memory pressure: Envoy's overload manager refuses requests", pressure::overload),
        fault("memory pressure: 24 uploads of 2 MiB at once, held back", pressure::uploads),
    ]
}

/// A request of the fault's own: what the client must see, and what must be counted.
pub(crate) struct Probe {
    pub request: Request,
    pub model: &'static str,
    pub status: u16,
    pub is_complete: bool,
    pub outcome: &'static str,
    pub tokens: Option<(u64, u64)>,
}

/// Sends it and enters it.
pub(crate) fn probe(world: &World, probe: Probe) -> Result<()> {
    let answer = probe.request.send(world.envoy.port)?;
    ensure!(
        (answer.status, answer.complete) == (probe.status, probe.is_complete),
        "{}: a client expected {} (whole: {}), and got {} (whole: {}): {:?}",
        probe.outcome,
        probe.status,
        probe.is_complete,
        answer.status,
        answer.complete,
        String::from_utf8_lossy(&answer.body)
    );
    let (bytes, ended) = (Some(probe.request.body.len() as u64), Instant::now());
    let (model, outcome, tokens) = (probe.model.to_owned(), probe.outcome, probe.tokens);
    world.enter(Fate { model, outcome, tokens, bytes, ended });
    Ok(())
}
