//! Envoy drained, stopped, and with a clock that jumps: each in a world of its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::Outcome;
use super::configuration::UnderWay;
use crate::chaos::load::Meaning;
use crate::chaos::world::{Found, SOON, World};
use crate::client::{Answer, Request};
use crate::tools::poll;

fn tell_admin(world: &World, path: &str) -> Result<()> {
    let answer = Request::bare("POST", path).send(world.envoy.admin)?;
    ensure!(answer.status == 200, "admin {path}: {}", answer.status);
    Ok(())
}

pub(super) fn drain(_: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let mut world = World::start()?;
    let under_way = UnderWay::start(&mut world, rng.u64(800..1_500))?;
    tell_admin(&world, "/drain_listeners?graceful")?;
    // Connections are told to end, and new ones are still taken.
    world.load.after(30)?;
    world.load.pause()?;
    tell_admin(&world, "/drain_listeners")?;
    under_way.end(&world)?;
    Ok(Outcome::Checked(world.check()?))
}

/// The process is going away: what a client sees of it is not ours.
fn anything(_: &Answer) -> Option<Meaning> {
    Some(Meaning::NotCounted)
}

pub(super) fn shutdown(_: &mut World, rng: &mut Rng) -> Result<Outcome> {
    let mut world = World::start()?;
    let before = world.check()?;
    let mut found = Found { requests: before.requests, ..before };
    if rng.bool() {
        // Those that wait in the queue, too.
        world.pool.all_have_waiting(100);
        world.waits(3.0)?;
    } else {
        world.load.after(rng.u64(20..200))?;
    }
    world.load.explain(anything);
    if rng.bool() {
        ensure!(world.envoy.process().stop(SOON), "Envoy does not stop:\n{}", world.envoy.log());
    } else {
        tell_admin(&world, "/quitquitquit")?;
        ensure!(poll(SOON, || world.envoy.process().ended().then_some(())).is_some(), "Envoy does not stop");
    }
    let status = world.envoy.process().0.wait()?;
    let log = world.envoy.log();
    if !status.success() || log.contains("panicked") {
        found.wrong.push(format!("Envoy ended with {status}:\n{log}"));
    }
    Ok(Outcome::Checked(found))
}

/// The library that lies about the time, built here.
fn clock_library(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, include_str!("../clock.c"))?;
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output()?;
    ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

/// The clock is so many seconds ahead from now on. In place: the processes have the file in their memory.
fn set_clock(offset: &Path, seconds: i64) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(offset)?;
    Ok(file.write_all(&seconds.to_ne_bytes())?)
}

pub(super) fn clock(_: &mut World, rng: &mut Rng) -> Result<Outcome> {
    if Command::new("cc").arg("--version").output().is_err() {
        return Ok(Outcome::NotRun("there is no C compiler for the library that sets the clock".to_owned()));
    }
    let folder = tempfile::tempdir()?;
    let (library, offset) = (clock_library(folder.path())?, folder.path().join("offset"));
    set_clock(&offset, 0)?;
    let environment = [("LD_PRELOAD", library.display()), ("CLOCK_OFFSET", offset.display())];
    let environment: Vec<_> = environment.map(|(name, value)| (name.to_owned(), value.to_string())).to_vec();
    let mut world = World::start_with(&|mut options| {
        options.environment.clone_from(&environment);
        options
    })?;
    let mut found = Found::default();
    for jump in [3_600, 0, -3_600] {
        // Whatever waits for a point in time when tallyd is gone waits for one an hour away after the jump.
        let is_gone = rng.bool();
        if is_gone {
            world.kill_companion()?;
            world.load.after(20)?;
        }
        let before = date(&world)?;
        let under_way = UnderWay::start(&mut world, 700)?;
        set_clock(&offset, jump)?;
        let hour = |date: &str| date.split([' ', ':']).nth(4).map(str::to_owned);
        let has_jumped = || (hour(&date(&world).ok()?) != hour(&before)).then_some(());
        ensure!(poll(SOON, has_jumped).is_some(), "the clock stays at {before}");
        world.load.after(50)?;
        if is_gone {
            world.start_companion()?;
        } else {
            world.kill_companion()?;
            world.load.after(50)?;
            world.start_companion()?;
        }
        world.load.after(100)?;
        under_way.end(&world)?;
        let checked = world.check().with_context(|| format!("after a jump to {jump} s"))?;
        found.requests = checked.requests;
        (found.lost, found.twice) = (checked.lost, checked.twice);
        found.wrong.extend(checked.wrong.into_iter().map(|wrong| format!("after a jump to {jump} s: {wrong}")));
    }
    Ok(Outcome::Checked(found))
}

/// Envoy's wall clock, as its answers have it: `Thu, 26 Nov 2026 20:47:11 GMT`.
fn date(world: &World) -> Result<String> {
    let answer = Request::bare("GET", "/ready").header("connection", "close").send(world.envoy.admin)?;
    let date = answer.headers.iter().find(|(name, _)| name == "date").map(|(_, value)| value.clone());
    date.context("no date")
}
