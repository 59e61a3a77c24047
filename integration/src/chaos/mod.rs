//! `make chaos`: a real Envoy, a real tallyd, clients whose ledger knows every request's fate, and faults by a schedule that
//! a seed repeats. After each fault the metrics have to be the ledger.
//!
//! In: a seed and how long. Out: a table of faults with what was lost, counted twice or hurt; an error if anything was.

mod book;
mod bootstrap;
mod faults;
mod load;
mod pool;
mod report;
pub(crate) mod upstream;
mod world;

use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use faults::{Fault, Outcome};
pub use report::{Report, Row};
use world::{Found, World};

/// How long and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of the schedule and of every choice in it.
    pub seed: u64,
    /// Faults are brought about until this is over; each kind at least once.
    pub time: Duration,
}

/// Which faults.
#[derive(Debug, Clone)]
pub enum Choice {
    /// Those whose names have this in them.
    Named(String),
    /// Those that take a world of their own.
    Apart,
    /// Those that share one.
    Shared,
}

/// Brings the faults about and looks after each.
///
/// # Errors
/// If a world cannot be started at all. What a fault finds is in the report.
pub fn run(settings: Settings, choice: &Choice) -> Result<Report> {
    let began = Instant::now();
    let mut rng = Rng::with_seed(settings.seed);
    let mut faults = faults::all();
    faults.retain(|fault| match choice {
        Choice::Named(part) => fault.name.contains(part.as_str()),
        Choice::Apart => fault.is_apart,
        Choice::Shared => !fault.is_apart,
    });
    let mut report = Report::new(settings.seed, faults.iter().map(|fault| fault.name));
    let mut world = World::start()?;
    let mut round = 0;
    while round == 0 || began.elapsed() < settings.time {
        rng.shuffle(&mut faults);
        for fault in &faults {
            if round > 0 && began.elapsed() >= settings.time {
                break;
            }
            // Each has a seed of its own: how often one draws does not change the others.
            let mut own = Rng::with_seed(rng.u64(..));
            if !bring_about(fault, &mut world, &mut own, &mut report) {
                world = World::start()?;
            }
        }
        round += 1;
    }
    report.took = began.elapsed();
    Ok(report)
}

/// False: the world is broken.
fn bring_about(fault: &Fault, world: &mut World, rng: &mut Rng, report: &mut Report) -> bool {
    let began = Instant::now();
    let seed = rng.get_seed();
    let before = world.requests();
    let result = (fault.run)(world, rng).and_then(|outcome| {
        Ok(match outcome {
            Outcome::Check => {
                let found = world.check()?;
                Ok(Found { requests: found.requests - before, ..found })
            }
            Outcome::Checked(found) => Ok(found),
            Outcome::NotRun(reason) => Err(reason),
        })
    });
    let is_sound = match result {
        Ok(Ok(found)) => {
            let is_sound = found.wrong.is_empty();
            report.enter(fault.name, &found);
            is_sound
        }
        Ok(Err(reason)) => {
            report.not_run(fault.name, &reason);
            true
        }
        Err(error) => {
            let has_crashed = !world.envoy.alive();
            let wrong = vec![format!("{error:#}")];
            report.enter(fault.name, &Found { wrong, has_crashed, ..Found::default() });
            false
        }
    };
    let took = began.elapsed().as_secs_f64();
    eprintln!("  {took:5.1} s  {} (seed {seed}): {}", fault.name, report.verdict(fault.name));
    is_sound
}
