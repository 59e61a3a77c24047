//! tallyd killed, stopped, frozen; its pool flapping, full. The filter fails open: no client may notice more than a wait.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::Outcome;
use crate::chaos::pool::ENDPOINTS;
use crate::chaos::world::{SOON, World};
use crate::tools::poll;

pub(super) fn killed(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    world.kill_companion()?;
    world.load.after(rng.u64(50..150))?;
    world.start_companion()?;
    world.load.after(50)?;
    Ok(Outcome::Check)
}

pub(super) fn stopped(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let mut companion = world.companion.take().context("tallyd runs")?;
    let ended = companion.process().stop(SOON);
    ensure!(ended, "tallyd does not stop:\n{}", companion.log());
    let status = companion.process().0.wait()?;
    ensure!(status.success(), "tallyd stopped with {status}:\n{}", companion.log());
    world.load.after(rng.u64(20..100))?;
    world.start_companion()?;
    world.load.after(50)?;
    Ok(Outcome::Check)
}

pub(super) fn frozen(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let pid = world.companion.as_ref().context("tallyd runs")?.pid().to_string();
    let signal = |name: &str| -> Result<()> {
        ensure!(Command::new("kill").args([name, &pid]).status()?.success(), "kill {name}");
        Ok(())
    };
    signal("-STOP")?;
    // Time and not traffic: there is none while it is frozen.
    std::thread::sleep(Duration::from_millis(rng.u64(300..1_500)));
    signal("-CONT")?;
    world.load.after(50)?;
    Ok(Outcome::Check)
}

pub(super) fn flapping(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let failed = |world: &World| {
        let page = world.companion.as_ref()?.page().ok()?;
        Some(page.total("inference_pool_scrape_errors_total", &[]))
    };
    let failed_before = failed(world).context("no page")?;
    let (least, began, mut steps) = (rng.usize(10..25), Instant::now(), 0);
    // A busy machine scrapes late: it goes on until it has been noticed.
    while steps < least || failed(world).context("no page")? == failed_before {
        ensure!(began.elapsed() < SOON, "tallyd notices nothing");
        world.pool.say(rng.usize(..ENDPOINTS), rng.u8(..));
        if rng.u8(..4) == 0 {
            world.pool.list(rng.usize(0..=ENDPOINTS))?;
        }
        std::thread::sleep(Duration::from_millis(rng.u64(10..80)));
        steps += 1;
    }
    world.pool.all_have_waiting(0);
    world.pool.list(ENDPOINTS)?;
    let ready = || Some(world.companion.as_ref()?.page().ok()?.total("inference_pool_ready_pods", &[]));
    ensure!(poll(SOON, || (ready()? == ENDPOINTS as f64).then_some(())).is_some(), "{:?} are ready", ready());
    Ok(Outcome::Check)
}

pub(super) fn full(world: &mut World, rng: &mut Rng) -> Result<Outcome> {
    world.pool.all_have_waiting(100);
    world.waits(3.0)?;
    std::thread::sleep(Duration::from_millis(rng.u64(0..500)));
    world.pool.all_have_waiting(0);
    world.load.after(100)?;
    Ok(Outcome::Check)
}
